import errno
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.image import imread

from core import rng
from core.data import batches
from core.data.datasets import Split
from core.evaluation.record import Evaluated
from core.model.build import build
from core.settings import Model, Run, Show
from core.show import figures, gallery

SIZES = dict(hidden_sizes=(8,), upper_hidden_sizes=(6,))


def new(**settings):
    """(model, weights) that draw something, if nothing that was learned."""
    model = build(Model(**SIZES, **settings))
    return model, model.init(0, 0.13)


@pytest.fixture(scope="module")
def plain():
    return new(latent_dim=2)


@pytest.fixture(scope="module")
def conditional():
    return new(latent_dim=2, conditional=True)


class Folder(NamedTuple):
    """What is asked of a `RunFolder`."""

    path: Path
    step: int = 30


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def rows_drawn(monkeypatch):
    """[(path, title, rows) of every picture of rows], which are not drawn."""
    drawn = []
    monkeypatch.setattr(figures, "image_rows", lambda *a: drawn.append(a[:3]))
    return drawn


def sampled(model, weights, noise, labels):
    """Images [N, 28, 28] of the model's own draws."""
    logits = model.sample(weights, noise, gallery.one_hot(model, labels)).numpy()
    return 1 / (1 + np.exp(-logits)).reshape(-1, 28, 28)


# --- From latents to pixels -----------------------------------------------------------


def test_pixel_means_are_probabilities_as_images():
    logits = np.zeros([2, 784], np.float32)
    logits[1, 28 * 3 + 5] = np.log(3)
    found = gallery.pixel_means(tf.constant(logits))
    assert found.shape == (2, 28, 28) and found[1, 3, 5] == pytest.approx(0.75)
    assert np.sum(found == 0.5) == 2 * 784 - 1


def test_labels_count_for_a_conditional_model_alone(plain, conditional):
    z = np.zeros([2, 2])
    same, other = gallery.decode(*plain, z, [3, 4])
    np.testing.assert_array_equal(same, other)
    three, four = gallery.decode(*conditional, z, [3, 4])
    assert not np.allclose(three, four)
    y = tf.one_hot([3, 4], 10)
    logits = conditional[0].decode(conditional[1], tf.zeros([2, 2]), y)
    np.testing.assert_array_equal([three, four], gallery.pixel_means(logits))


def test_samples_are_decoded_draws_of_one_key(plain, conditional, monkeypatch):
    """In parts of three as all at once; and each draw has a number."""
    key, labels = rng.key(0, rng.Stream.SAMPLE, 0), np.arange(8)
    rows = np.arange(5, 13)
    two = new(stochastic_layers=2, latent_dims=(4, 3))
    for model, weights in (plain, conditional, two):
        noise = rng.normal_rows(key, 5, (8, model.noise_size))
        expected = sampled(model, weights, noise, labels)
        whole = gallery.prior_samples(model, weights, key, labels, rows)
        np.testing.assert_allclose(whole, expected, atol=1e-6)
        with monkeypatch.context() as context:
            context.setattr(gallery, "AT_ONCE", 3)
            parts = gallery.prior_samples(model, weights, key, labels, rows)
        assert parts.dtype == np.float32 and 0 < parts.min() < parts.max() < 1
        np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_equal_styles_share_their_latents(conditional):
    key = rng.key(0, rng.Stream.SAMPLE, 0)
    labels, styles = [3, 3, 3, 4], np.array([0, 0, 1, 1])
    a, b, c, d = gallery.prior_samples(*conditional, key, labels, styles)
    np.testing.assert_array_equal(a, b)  # of one style and one class
    assert not np.allclose(a, c) and not np.allclose(c, d)


# --- The figures of a run -------------------------------------------------------------


def test_a_hundred_samples_differ_from_each_other(plain, rows_drawn, tmp_path):
    gallery.draw_samples(*plain, 0, tmp_path)
    gallery.draw_samples(*plain, 1, tmp_path)
    (path, title, first), (*_, second) = rows_drawn
    assert path == tmp_path / "samples.png"
    assert title == "Pixel means of samples from the prior"
    assert first.shape == (10, 10, 28, 28)
    assert len({image.tobytes() for image in first.reshape(100, -1)}) == 100
    assert not np.allclose(first, second)  # of another seed


def test_samples_of_classes_have_one_z_a_row_and_one_class_a_column(
    conditional, rows_drawn, tmp_path
):
    gallery.draw_samples(*conditional, 0, tmp_path)
    ((_, title, images),) = rows_drawn
    assert title.endswith(": one z a row, one class a column")
    noise = rng.normal_rows(rng.key(0, rng.Stream.SAMPLE, 0), 0, (10, 2)).numpy()
    for row in range(10):
        expected = sampled(*conditional, np.tile(noise[row], [10, 1]), np.arange(10))
        np.testing.assert_allclose(images[row], expected, atol=1e-6)


@pytest.fixture
def manifolds(monkeypatch):
    """{name: digits} of the manifolds that are drawn."""
    drawn = {}
    monkeypatch.setattr(
        figures, "manifold", lambda path, digits: drawn.update({path.name: digits})
    )
    return drawn


def test_the_manifold_is_the_decoded_grid(plain, manifolds, tmp_path):
    gallery.draw_manifold(*plain, tmp_path)
    assert list(manifolds) == ["manifold.png"]
    grid = tf.constant(figures.manifold_grid(), tf.float32)
    logits = plain[0].decode(plain[1], grid)
    np.testing.assert_array_equal(
        manifolds["manifold.png"], gallery.pixel_means(logits)
    )


def test_every_class_has_a_manifold_of_its_own(conditional, manifolds, tmp_path):
    gallery.draw_manifold(*conditional, tmp_path)
    assert list(manifolds) == [f"manifold_{label}.png" for label in range(10)]
    assert len({digits.tobytes() for digits in manifolds.values()}) == 10
    grid = figures.manifold_grid()
    sevens = gallery.decode(*conditional, grid, np.full(len(grid), 7))
    np.testing.assert_array_equal(manifolds["manifold_7.png"], sevens)


@pytest.mark.parametrize(
    "settings",
    [{"latent_dim": 3}, {"stochastic_layers": 2, "latent_dims": (2, 2)}],
    ids=["three dimensions", "two layers"],
)
def test_only_two_dimensions_have_a_manifold(settings, manifolds, tmp_path):
    gallery.draw_manifold(*new(**settings), tmp_path)
    assert manifolds == {}


def evaluated(digits, count, grey=False):
    """So many test images, and posterior means that were made up for them."""
    pixels = batches.flatten(digits[1].images[:count])
    split = Split(pixels if grey else pixels >= 128, tf.constant(digits[1].labels))
    split = split._replace(labels=split.labels[:count])
    z_mean = np.random.default_rng(0).standard_normal([count, 2]).astype(np.float32)
    return Evaluated({"split": "test"}, split, len(digits[1].images), z_mean)


@pytest.mark.parametrize("grey", [False, True])
def test_images_are_shown_as_they_were_evaluated(
    plain, digits, monkeypatch, tmp_path, grey
):
    seen = {}
    for name in ("latent_space", "reconstructions", "interpolations"):
        monkeypatch.setattr(
            figures, name, lambda *arguments, name=name: seen.update({name: arguments})
        )
    given = evaluated(digits, 40, grey)
    gallery.draw_images(*plain, given, tmp_path)
    path, z_mean, labels, kind = seen["latent_space"]
    assert path == tmp_path / "latent_space.png" and kind == "test"
    np.testing.assert_array_equal(z_mean, given.z_mean)
    np.testing.assert_array_equal(labels, digits[1].labels[:40])
    for name in ("reconstructions", "interpolations"):
        path, kind, images, labels, z_mean, decode = seen[name]
        assert path == tmp_path and kind == "test"
        np.testing.assert_array_equal(labels, digits[1].labels[:40])
        np.testing.assert_array_equal(z_mean, given.z_mean)
        expected = digits[1].images[[5, 1]]
        expected = expected / 255 if grey else expected >= 128
        np.testing.assert_allclose(images([5, 1]), expected, rtol=1e-6)
        decoded = gallery.decode(*plain, z_mean[:3], labels[:3])
        np.testing.assert_array_equal(decode(z_mean[:3], labels[:3]), decoded)


@pytest.mark.parametrize("count", [1, 2, 60])
def test_few_images_are_enough_for_whole_figures(conditional, digits, tmp_path, count):
    gallery.draw_images(*conditional, evaluated(digits, count), tmp_path)
    names = {"latent_space.png", "reconstructions.png", "interpolations.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in names:
        assert min(imread(tmp_path / name).shape[:2]) > 50


# --- Digits to take away --------------------------------------------------------------


def generate(model, folder, seed=0, **changes):
    gallery.generate(*model, None, folder, Run(seed=seed), Show(**changes))


def array_of(folder, name):
    return np.load(folder.path / "figures" / f"{name}.npy")


def test_digits_are_an_array_and_a_picture(plain, folder, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "PICTURED", 4)
    for count, seed in ((7, 0), (7, 1), (1, 0)):
        generate(plain, folder, seed, num_images=count)
        found = array_of(folder, f"generated_{count}_seed{seed}_step30")
        key = rng.key(seed, rng.Stream.SAMPLE, 1)  # not those of the figures
        expected = gallery.prior_samples(
            *plain, key, np.arange(count) % 10, np.arange(count)
        )
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32 and found.shape == (count, 28, 28)
        name = f"figures/generated_{count}_seed{seed}_step30"
        assert imread(folder.path / f"{name}.png").std() > 0.05
        output = capsys.readouterr().out
        assert (
            f"{count} digits: float32 [{count}, 28, 28] in {folder.path}/{name}.npy"
            in output
        )
        some = " of the first 4" if count > 4 else ""
        assert f"Picture{some}: {folder.path}/{name}.png" in output
    assert len(list((folder.path / "figures").iterdir())) == 2 * 3


def test_a_conditional_model_draws_the_digit_asked_for(conditional, folder, rows_drawn):
    for digit in (7, -1):
        generate(conditional, folder, num_images=25, digit=digit)
    sevens = array_of(folder, "generated_25_digit7_seed0_step30")
    all_ten = array_of(folder, "generated_25_seed0_step30")
    key = rng.key(0, rng.Stream.SAMPLE, 1)
    for found, labels in ((sevens, np.full(25, 7)), (all_ten, np.arange(25) % 10)):
        expected = gallery.prior_samples(*conditional, key, labels, np.arange(25))
        np.testing.assert_array_equal(found, expected)
    (_, title, rows), (*_, other_rows) = rows_drawn
    assert title == "Pixel means of 25 samples from the prior, given 7"
    assert [len(row) for row in other_rows] == [10, 10, 5]  # a class a column
    np.testing.assert_array_equal(np.concatenate(rows), sevens)


def test_a_picture_without_classes_is_about_square(plain, folder, rows_drawn):
    generate(plain, folder, num_images=11)
    ((_, title, rows),) = rows_drawn
    assert title == "Pixel means of 11 samples from the prior"
    assert [len(row) for row in rows] == [4, 4, 3]


def test_digits_are_written_whole_or_not_at_all(plain, folder, monkeypatch):
    def full(file, array):
        file.write(b"a beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    generate(plain, folder, num_images=2)
    before = array_of(folder, "generated_2_seed0_step30")
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        generate(plain, folder, num_images=2)
    np.testing.assert_array_equal(array_of(folder, "generated_2_seed0_step30"), before)
    assert not list(folder.path.rglob("*.partial"))
