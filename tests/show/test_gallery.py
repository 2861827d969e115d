import contextlib
import errno
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.image import imread

from core import progress, rng
from core.data import batches, datasets
from core.data.datasets import Split
from core.errors import UserError
from core.evaluation.record import Evaluated
from core.model import flow
from core.model.build import build
from core.settings import Data, Model, Run, Show
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
    """What is asked of a `RunFolder`, of a run that was trained on these classes."""

    path: Path
    step: int = 30
    classes: tuple = tuple(range(10))

    @property
    def recorded(self):
        return {"dataset": {"classes": list(self.classes)}}


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


def test_samples_are_decoded_draws_of_one_key(plain, conditional):
    """Each draw has a number, whichever are drawn together."""
    key, labels = rng.key(0, rng.Stream.SAMPLE, 0), np.arange(8)
    rows = np.arange(5, 13)
    two = new(stochastic_layers=2, latent_dims=(4, 3))
    for model, weights in (plain, conditional, two):
        noise = rng.normal_rows(key, 5, (8, model.noise_size))
        expected = sampled(model, weights, noise, labels)
        whole = gallery.prior_samples(model, weights, key, labels, rows)
        np.testing.assert_allclose(whole, expected, atol=1e-6)
        part = gallery.prior_samples(model, weights, key, labels[3:6], rows[3:6])
        assert part.dtype == np.float32 and 0 < part.min() < part.max() < 1
        np.testing.assert_allclose(part, whole[3:6], atol=1e-6)


def test_equal_styles_share_their_latents(conditional):
    key = rng.key(0, rng.Stream.SAMPLE, 0)
    labels, styles = [3, 3, 3, 4], np.array([0, 0, 1, 1])
    a, b, c, d = gallery.prior_samples(*conditional, key, labels, styles)
    np.testing.assert_array_equal(a, b)  # of one style and one class
    assert not np.allclose(a, c) and not np.allclose(c, d)


# --- The figures of a run -------------------------------------------------------------


def test_a_hundred_samples_differ_from_each_other(plain, rows_drawn, tmp_path):
    gallery.draw_samples(tmp_path / "samples.png", *plain, 0)
    gallery.draw_samples(tmp_path / "samples.png", *plain, 1)
    (path, title, first), (*_, second) = rows_drawn
    assert path == tmp_path / "samples.png"
    assert title == "Pixel means of samples from the prior"
    assert first.shape == (10, 10, 28, 28)
    assert len({image.tobytes() for image in first.reshape(100, -1)}) == 100
    assert not np.allclose(first, second)  # of another seed


def test_samples_of_classes_have_one_z_a_row_and_one_class_a_column(
    conditional, rows_drawn, tmp_path
):
    gallery.draw_samples(tmp_path / "samples.png", *conditional, 0)
    ((_, title, images),) = rows_drawn
    assert title.endswith(": one z a row, one class a column")
    noise = rng.normal_rows(rng.key(0, rng.Stream.SAMPLE, 0), 0, (10, 2)).numpy()
    for row in range(10):
        expected = sampled(*conditional, np.tile(noise[row], [10, 1]), np.arange(10))
        np.testing.assert_allclose(images[row], expected, atol=1e-6)


@pytest.fixture
def manifolds(monkeypatch):
    """{name: (digits, x, y, where, name of the axes)} of the manifolds drawn."""
    drawn = {}
    monkeypatch.setattr(
        figures, "manifold", lambda path, *rest: drawn.update({path.name: rest})
    )
    return drawn


def draw_manifolds(model, weights, digits, folder):
    """Those that a run draws."""
    drawings = gallery.drawings(model, weights, evaluated(digits, 2))
    for name, draw in drawings.items():
        if name.startswith("manifold"):
            draw(folder / name)


def test_the_manifold_is_the_decoded_grid(plain, digits, manifolds, tmp_path):
    draw_manifolds(*plain, digits, tmp_path)
    assert list(manifolds) == ["manifold.png"]
    found, *axes = manifolds["manifold.png"]
    assert_quantiles(*axes, "z")
    logits = plain[0].decode(plain[1], quantile_grid())
    np.testing.assert_array_equal(found, gallery.pixel_means(logits))


def quantile_grid():
    return tf.constant(figures.grid(*[figures.quantiles()] * 2), tf.float32)


def assert_quantiles(x, y, where, name, expected):
    assert (where, name) == ("at the prior's quantiles", expected)
    for axis in (x, y):
        np.testing.assert_array_equal(axis, figures.quantiles())


def learned(prior, **settings):
    """(model, weights) whose prior is moved from where it begins."""
    sizes = {"latent_dim": 2, "prior_components": 3, "flow_layers": 2, "flow_units": 4}
    model, weights = new(prior=prior, **sizes | settings)
    random = np.random.default_rng(0)
    for variable in tf.nest.flatten(weights["prior"]):
        variable.assign_add(0.5 * random.standard_normal(variable.shape))
    return model, weights


def test_the_manifold_of_a_flow_is_where_it_carries_the_grid(
    digits, manifolds, tmp_path
):
    model, weights = learned("flow", activation="relu")
    draw_manifolds(model, weights, digits, tmp_path)
    found, *axes = manifolds["manifold.png"]
    assert_quantiles(*axes, "e")
    z, *_ = gallery.manifold_points(model.prior, weights, 5)
    noise, _ = flow.to_noise(weights["prior"], z, (1, 1), tf.nn.relu)
    np.testing.assert_allclose(noise, quantile_grid(), atol=1e-5)
    assert np.abs(z - quantile_grid()).max() > 0.1
    np.testing.assert_array_equal(found, gallery.decode(model, weights, z, [0]))


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_the_manifold_of_a_mixture_is_where_its_draws_are(
    prior, digits, manifolds, tmp_path
):
    """The central 99 % of them, in even steps."""
    model, weights = learned(prior)
    draw_manifolds(model, weights, digits, tmp_path)
    found, x, y, where, name = manifolds["manifold.png"]
    assert (where, name) == ("within the central 99 % of the prior", "z")
    noise = np.random.default_rng(0).standard_normal([50_000, 3])
    draws = model.prior.sample(weights, tf.constant(noise, tf.float32)).numpy()
    for axis, along in ((x, draws[:, 0]), (y, draws[:, 1])):
        np.testing.assert_allclose(axis, np.linspace(axis[0], axis[-1], 20))
        inside = np.mean((axis[0] < along) & (along < axis[-1]))
        assert inside == pytest.approx(0.99, abs=0.004)
        assert np.mean(along < axis[0]) == pytest.approx(0.005, abs=0.003)
    grid = figures.grid(x, y)
    np.testing.assert_array_equal(found, gallery.decode(model, weights, grid, [0]))


def test_every_class_has_a_manifold_of_its_own(
    conditional, digits, manifolds, tmp_path
):
    draw_manifolds(*conditional, digits, tmp_path)
    assert list(manifolds) == [f"manifold_{label}.png" for label in range(10)]
    assert len({digits.tobytes() for digits, *_ in manifolds.values()}) == 10
    grid = quantile_grid()
    sevens = gallery.decode(*conditional, grid, np.full(len(grid), 7))
    np.testing.assert_array_equal(manifolds["manifold_7.png"][0], sevens)


@pytest.mark.parametrize(
    "settings",
    [
        {"latent_dim": 3},
        {"latent_dim": 1, "prior": "mixture"},  # a draw needs two numbers
        {"stochastic_layers": 2, "latent_dims": (2, 2)},
    ],
    ids=["three dimensions", "one dimension", "two layers"],
)
def test_only_two_dimensions_have_a_manifold_and_contours(
    settings, digits, manifolds, monkeypatch, tmp_path
):
    priors = []
    monkeypatch.setattr(figures, "latent_space", lambda *a: priors.append(a[4:]))
    model, weights = new(**settings)
    draw_manifolds(model, weights, digits, tmp_path)
    assert manifolds == {}
    drawings = gallery.drawings(model, weights, evaluated(digits, 2))
    drawings["latent_space.png"](tmp_path)
    assert priors == [(None,)]


@pytest.mark.parametrize("prior", ["standard", "mixture", "vamp", "flow"])
def test_the_contours_are_of_the_models_own_prior(prior, digits, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(figures, "latent_space", lambda *a: seen.append(a[4]))
    model, weights = new(latent_dim=2) if prior == "standard" else learned(prior)
    drawings = gallery.drawings(model, weights, evaluated(digits, 2))
    assert ("pseudo_inputs.png" in drawings) == (prior == "vamp")
    drawings["latent_space.png"](tmp_path)
    z = np.random.default_rng(0).standard_normal([7, 2])
    expected = model.prior.log_prob(weights, tf.constant(z[None], tf.float32))[0]
    ((log_prior, draws),) = seen
    np.testing.assert_array_equal(log_prior(z), expected)
    noise = np.random.default_rng(0).standard_normal([10_000, model.prior.noise_size])
    others = model.prior.sample(weights, tf.constant(noise, tf.float32))
    for moment in (np.mean, np.std):
        np.testing.assert_allclose(moment(draws, 0), moment(others, 0), 0.05, 0.05)


@pytest.mark.parametrize("count", [2, 40])
@pytest.mark.parametrize("layers", [1, 2])
def test_pseudo_inputs_are_shown_with_what_they_decode_to(
    layers, count, digits, monkeypatch, tmp_path
):
    """36 of them at most. Points of the lower of two layers show that alone."""
    drawn, sizes = [], [{}, {"stochastic_layers": 2, "latent_dims": (4, 2)}][layers - 1]
    monkeypatch.setattr(figures, "image_rows", lambda *a: drawn.append(a))
    model, weights = learned("vamp", prior_components=count, **sizes)
    drawings = gallery.drawings(model, weights, evaluated(digits, 2))
    drawings["pseudo_inputs.png"](tmp_path / "x.png")
    ((path, title, rows, names),) = drawn
    shown = min(count, 36)
    assert path == tmp_path / "x.png" and len(rows) == len(names)
    assert title == f"{shown} of {count} pseudo-inputs of the prior"
    inputs = model.prior.pseudo_inputs(weights)[:shown]
    decoded = [r for r, name in zip(rows, names, strict=True) if name == "decoded"]
    assert len(decoded) == 3
    if layers == 1:
        assert names == ["pseudo-input", "decoded"] * 3
        images = np.reshape(inputs, [shown, 28, 28])
        np.testing.assert_array_equal(np.concatenate(rows[::2]), images)
        inputs = model.encode(weights, inputs)[0]
    means = gallery.pixel_means(model.decode(weights, inputs))
    np.testing.assert_array_equal(np.concatenate(decoded), means)
    monkeypatch.undo()
    drawings["pseudo_inputs.png"](tmp_path / "x.png")
    assert min(imread(tmp_path / "x.png").shape[:2]) > 50


def evaluated(digits, count, grey=False):
    """So many test images, and posterior means that were made up for them."""
    pixels = batches.flatten(digits[1].images[:count])
    split = Split(pixels if grey else pixels >= 128, tf.constant(digits[1].labels))
    split = split._replace(labels=split.labels[:count])
    z_mean = np.random.default_rng(0).standard_normal([count, 2]).astype(np.float32)
    return Evaluated({"split": "test", "seed": 5}, split, z_mean, {})


def test_every_figure_of_a_run_can_be_had_without_a_file(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawings = gallery.drawings(*learned("vamp"), evaluated(digits, 12))
    assert len(drawings) == 6
    for name, draw in drawings.items():
        assert isinstance(draw(None), Figure), name
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("grey", [False, True])
def test_images_are_shown_as_they_were_evaluated(
    plain, digits, monkeypatch, tmp_path, grey
):
    seen, names = {}, ("latent_space", "reconstructions", "interpolations")
    for name in names:
        monkeypatch.setattr(
            figures, name, lambda *arguments, name=name: seen.update({name: arguments})
        )
    given = evaluated(digits, 40, grey)
    monkeypatch.setattr(
        gallery, "draw_samples", lambda *arguments: seen.update(samples=arguments)
    )
    drawings = gallery.drawings(*plain, given)
    to = tmp_path / "x.png"
    assert list(drawings) == [f"{n}.png" for n in [*names, "manifold", "samples"]]
    for name in (*names, "samples"):
        drawings[f"{name}.png"](to)
        assert list(seen)[-1] == name
    assert seen["samples"] == (to, *plain, 5)  # of the seed that was evaluated with
    path, z_mean, labels, kind, (log_prior, draws) = seen["latent_space"]
    np.testing.assert_allclose(log_prior(np.zeros([1, 2])), -np.log(2 * np.pi), 1e-6)
    noise = rng.normal(rng.key(5, rng.Stream.SAMPLE, 2), [10_000, 2])
    np.testing.assert_array_equal(draws, noise)
    assert path == to and kind == "binarized " * (not grey) + "test"
    np.testing.assert_array_equal(z_mean, given.z_mean)
    np.testing.assert_array_equal(labels, digits[1].labels[:40])
    for name in ("reconstructions", "interpolations"):
        path, kind, images, labels, z_mean, decode = seen[name]
        assert path == to and kind == "binarized " * (not grey) + "test"
        np.testing.assert_array_equal(labels, digits[1].labels[:40])
        np.testing.assert_array_equal(z_mean, given.z_mean)
        expected = digits[1].images[[5, 1]]
        expected = expected / 255 if grey else expected >= 128
        np.testing.assert_allclose(images([5, 1]), expected, rtol=1e-6)
        decoded = gallery.decode(*plain, z_mean[:3], labels[:3])
        np.testing.assert_array_equal(decode(z_mean[:3], labels[:3]), decoded)


@pytest.mark.parametrize("count", [1, 2, 60])
def test_few_images_are_enough_for_whole_figures(conditional, digits, tmp_path, count):
    drawings = gallery.drawings(*conditional, evaluated(digits, count))
    names = ["latent_space.png", "reconstructions.png", "interpolations.png"]
    manifolds = [f"manifold_{label}.png" for label in range(10)]
    assert [*drawings] == [*names, *manifolds, "samples.png"]
    for name in names:
        drawings[name](tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == set(names)
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


@pytest.mark.parametrize("at_once", [4, 10, 11])
def test_digits_are_drawn_in_parts_as_all_at_once(
    plain, conditional, folder, rows_drawn, monkeypatch, at_once
):
    for model in (plain, conditional):
        generate(model, folder, num_images=23)
        whole = array_of(folder, "generated_23_seed0_step30")
        with monkeypatch.context() as context:
            context.setattr(gallery, "AT_ONCE", at_once)
            generate(model, folder, num_images=23)
        parts = array_of(folder, "generated_23_seed0_step30")
        np.testing.assert_allclose(parts, whole, atol=1e-6)
        assert len(np.unique(parts.reshape(23, -1), axis=0)) == 23
        (*_, first), (*_, second) = rows_drawn
        assert list(map(len, first)) == list(map(len, second))
        np.testing.assert_allclose(np.concatenate(second), whole, atol=1e-6)
        rows_drawn.clear()


def test_the_first_digits_are_the_same_however_many_are_asked_for(
    plain, folder, rows_drawn, monkeypatch
):
    """Each has a number, whatever parts they are drawn in."""
    monkeypatch.setattr(gallery, "AT_ONCE", 4)
    for count in (6, 9):
        generate(plain, folder, num_images=count)
    six, nine = (array_of(folder, f"generated_{n}_seed0_step30") for n in (6, 9))
    np.testing.assert_allclose(six, nine[:6], atol=1e-6)


def test_any_number_of_digits_takes_a_bounded_memory(
    plain, folder, rows_drawn, monkeypatch
):
    """30,000 of them are 94 MB."""
    asked = []

    def samples(model, weights, key, labels, rows, scale):
        asked.append(len(labels))
        return np.tile((rows % 7 / 7).astype("f4")[:, None, None], [1, 28, 28])

    monkeypatch.setattr(gallery, "prior_samples", samples)
    tracemalloc.start()
    try:
        generate(plain, folder, num_images=30_500)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    assert asked == [1000] * 30 + [500] and peak < 30
    found = array_of(folder, "generated_30500_seed0_step30")
    assert found.shape == (30_500, 28, 28) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 3, 5], np.arange(30_500) % 7 / 7, rtol=1e-6)
    assert sum(map(len, rows_drawn[0][2])) == gallery.PICTURED


def test_many_digits_are_drawn_under_a_bar(plain, folder, rows_drawn, monkeypatch):
    """Half a million take a quarter of a minute or more."""
    moved = []

    class Bar(contextlib.nullcontext):
        def update(self, count):
            moved.append(count)

        def close(self):
            pass

    def bar(total, *rest, **more):
        moved.append(total)
        found = Bar()
        found.enter_result = found
        return found

    monkeypatch.setattr(progress, "bar", bar)
    monkeypatch.setattr(gallery, "AT_ONCE", 4)
    generate(plain, folder, num_images=10)
    assert moved == [10, 4, 4, 2]


@pytest.mark.parametrize("digit", [3, 4, 9])
def test_a_class_that_was_never_seen_is_refused(conditional, tmp_path, digit):
    """It would be drawn as something else. Nothing is left of the attempt."""
    folder = Folder(tmp_path, classes=(0, 1, 2, 5, 6, 7, 8))
    with pytest.raises(UserError) as error:
        generate(conditional, folder, num_images=2, digit=digit)
    assert str(error.value) == (
        f"--digit={digit}: the run was trained on the classes 0, 1, 2, 5, 6, 7, 8 "
        "alone: choose one of them"
    )
    assert not list(tmp_path.iterdir())


def test_classes_that_were_seen_are_drawn_and_said(
    conditional, plain, tmp_path, rows_drawn, capsys
):
    """Where all are asked for, of which some were never seen."""
    folder, told = Folder(tmp_path, classes=(0, 5)), "trained on: 0, 5\n"
    generate(conditional, folder, num_images=2, digit=5)
    assert told not in capsys.readouterr().out
    generate(conditional, folder, num_images=2)
    assert told in capsys.readouterr().out
    generate(plain, folder, num_images=2)  # no class is asked of it
    generate(conditional, Folder(tmp_path), num_images=2)
    assert "trained on" not in capsys.readouterr().out


def test_a_run_of_a_program_that_noted_no_classes_draws_as_before(
    conditional, folder, rows_drawn
):
    class Older(Folder):
        recorded = {"dataset": {"name": "mnist"}}

    generate(conditional, Older(folder.path), num_images=2, digit=9)
    assert array_of(folder, "generated_2_digit9_seed0_step30").shape == (2, 28, 28)


def test_a_picture_without_classes_is_about_square(plain, folder, rows_drawn):
    generate(plain, folder, num_images=11)
    ((_, title, rows),) = rows_drawn
    assert title == "Pixel means of 11 samples from the prior"
    assert [len(row) for row in rows] == [4, 4, 3]


def test_digits_are_written_whole_or_not_at_all(plain, folder, monkeypatch):
    def full(model, weights, key, labels, rows, scale):
        if min(rows):
            raise OSError(errno.ENOSPC, "No space left on device")
        return np.zeros([len(rows), 28, 28], np.float32)

    generate(plain, folder, num_images=2)
    before = array_of(folder, "generated_2_seed0_step30")
    monkeypatch.setattr(gallery, "AT_ONCE", 1)
    monkeypatch.setattr(gallery, "prior_samples", full)
    with pytest.raises(OSError, match="No space"):
        generate(plain, folder, num_images=2)
    np.testing.assert_array_equal(array_of(folder, "generated_2_seed0_step30"), before)
    assert not list(folder.path.rglob("*.partial"))


# --- A point, the way between two images, and temperature -----------------------------


def test_a_point_is_decoded(plain, folder, rows_drawn):
    generate(plain, folder, z="0.5,-1.2")
    found = array_of(folder, "generated_z0.5,-1.2_step30")
    np.testing.assert_array_equal(found, gallery.decode(*plain, [[0.5, -1.2]], [0]))
    ((path, title, rows),) = rows_drawn
    assert path.name == "generated_z0.5,-1.2_step30.png" and "z0.5,-1.2" in title
    np.testing.assert_array_equal(rows, [found])
    with pytest.raises(UserError, match="^--z=1,2,3: expected 2 numbers, got 3"):
        generate(plain, folder, z="1,2,3")


def test_points_that_begin_alike_have_names_of_their_own():
    model = SimpleNamespace(latent_dims=(20,), conditional=False)
    names = set()
    for last in ("1.5", "-1.5"):
        show = Show(z=",".join(["0.12345"] * 19 + [last]))
        name, z, _ = gallery.points(model, None, None, show, 0)
        assert z.shape == (1, 20) and z[0, -1] == float(last)
        names.add(name)
    assert len(names) == 2 and max(map(len, names)) <= 101


def test_a_point_of_a_conditional_model_is_of_every_class_or_of_one(
    conditional, folder, rows_drawn
):
    generate(conditional, folder, z="1,2")
    generate(conditional, folder, z="1,2", digit=7)
    ten, one = (array_of(folder, f"generated_z1,2{k}_step30") for k in ("", "_digit7"))
    expected = gallery.decode(*conditional, np.full([10, 2], [1, 2]), np.arange(10))
    np.testing.assert_array_equal(ten, expected)
    np.testing.assert_allclose(one[0], ten[7], atol=1e-6)


@pytest.mark.parametrize("labeled", [False, True])
def test_the_way_between_two_images_is_that_between_their_posterior_means(
    labeled, plain, conditional, digits, folder, rows_drawn
):
    model, weights = conditional if labeled else plain
    settings = Data(validation_size=30, binarization="static")
    data = datasets.split("mine", *digits, settings)
    show = Show(interpolate="3,5")
    gallery.generate(model, weights, data, folder, Run(seed=4), show)
    found = array_of(folder, "generated_images3-5_seed4_step30")
    split = datasets.fix(data, "test", 4)
    x, y = batches.to_batch(*(tf.gather(part, [3, 5]) for part in split))
    ends = model.encode(weights, x, y if labeled else None)[0].numpy()
    line = [(1 - t) * ends[0] + t * ends[1] for t in np.linspace(0, 1, 10)]
    label = split.labels.numpy()[3]
    expected = gallery.decode(model, weights, line, np.full(10, label))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    wrong = Show(interpolate="3,60")
    with pytest.raises(UserError, match="expected two test images from 0 to 59"):
        gallery.generate(model, weights, data, folder, Run(), wrong)


@pytest.mark.parametrize("prior", ["standard", "mixture", "flow"])
def test_temperature_is_of_the_spread_and_not_of_the_choice(prior, folder, rows_drawn):
    settings = {} if prior == "standard" else {"prior": prior}
    model, weights = new(latent_dim=2, **settings) if not settings else learned(prior)
    generate((model, weights), folder, num_images=6, temperature=0.25)
    found = array_of(folder, "generated_6_temperature0.25_seed0_step30")
    key = rng.key(0, rng.Stream.SAMPLE, 1)
    noise = rng.normal_rows(key, 0, (6, model.noise_size)).numpy()
    noise[:, prior == "mixture" :] *= 0.25
    expected = sampled(model, weights, tf.constant(noise), [0] * 6)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_temperature_is_of_both_layers(folder):
    sizes = dict(stochastic_layers=2, latent_dims=(4, 2), prior="mixture")
    scale = gallery.noise_scale(new(**sizes)[0], 0.5)
    np.testing.assert_array_equal(scale, [0.5] * 4 + [1] + [0.5] * 2)
