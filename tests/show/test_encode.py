import hashlib

import numpy as np
import pytest
import tensorflow as tf

from core.data import batches, binarization, datasets
from core.errors import UserError
from core.evaluation import bounds
from core.settings import Run, Show
from core.show import encode
from tests.show.test_gallery import Folder, new

IMAGES = np.random.default_rng(0).integers(0, 256, [7, 28, 28], np.uint8)
IMAGES[:, :, 12:] = 0


class Recorded(Folder):
    """A folder whose run was trained on pixels of a kind."""

    kind = "dynamic"

    @property
    def recorded(self):
        return {"flags": {"binarization": self.kind}, "dataset": {"classes": [2, 7]}}


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "mine.npy", IMAGES)
    return Recorded(tmp_path)


def encoded(model, folder, images="mine.npy", **show):
    """What is written, by its names; and the file's path."""
    show["images"] = str(folder.path / images)
    before = {*folder.path.glob("latents/*")}
    encode.encode(*model, None, folder, Run(seed=3), Show(**show))
    (path,) = {*folder.path.glob("latents/*")} - before
    with np.load(path) as file:
        return dict(file), path.name


@pytest.mark.parametrize("kind", ["dynamic", "none"])
def test_latents_are_those_of_the_images_as_the_run_sees_pixels(
    folder, capsys, monkeypatch, kind
):
    monkeypatch.setattr(Recorded, "kind", kind)
    monkeypatch.setattr(encode.numerics, "CHUNK", 40)
    model, weights = new(latent_dim=2)
    found, name = encoded((model, weights), folder)
    flat = tf.constant(IMAGES.reshape(7, 784))
    pixels = binarization.own_pixels(flat, kind, 3, datasets.INDEX["own"])
    x, _ = batches.to_batch(pixels)
    mean, log_var = model.encode(weights, x)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["log_var"], log_var, rtol=1e-5, atol=1e-6)
    split = datasets.Split(pixels, tf.zeros([7], tf.int32))
    images = bounds.evaluate(model, weights, split, "own", 3).images
    for part in ("distortion", "rate"):
        np.testing.assert_array_equal(found[part], images[part])
    kl = 0.5 * np.sum(mean**2 + np.exp(log_var) - 1 - log_var, axis=1)
    np.testing.assert_allclose(found["rate"], kl, rtol=1e-3, atol=1e-5)
    assert [*found["names"]] == [f"mine.npy[{i}]" for i in range(7)]
    assert found["binarization"] == kind and found["seed"] == 3
    assert name.startswith("mine_") and name.endswith("_seed3_step30.npz")
    output = capsys.readouterr().out
    assert f"7 images, binarization {kind}, seed 3" in output and name in output
    assert "swapped" not in output


def test_another_input_of_the_same_name_has_another_file(folder):
    model = new(latent_dim=2)
    _, first = encoded(model, folder)
    kept = hashlib.sha256((folder.path / "latents" / first).read_bytes()).digest()
    np.save(folder.path / "mine.npy", IMAGES[:3])
    _, second = encoded(model, folder)
    assert first != second
    content = (folder.path / "latents" / first).read_bytes()
    assert hashlib.sha256(content).digest() == kept


def test_labels_are_those_of_the_class_that_is_given(folder):
    model, weights = new(latent_dim=2, conditional=True)
    with pytest.raises(UserError, match="--conditional: give --digit=CLASS"):
        encoded((model, weights), folder)
    found, name = encoded((model, weights), folder, digit=7)
    assert "_digit7_" in name
    other, _ = encoded((model, weights), folder, digit=2)
    assert not np.allclose(found["mean"], other["mean"])
    with pytest.raises(UserError, match="--digit=3: .* on the classes 2, 7 alone"):
        encoded((model, weights), folder, digit=3)


@pytest.mark.parametrize("kind", ["dynamic", "none"])
@pytest.mark.parametrize("prior", ["standard", "flow"])
def test_an_image_has_the_same_numbers_wherever_it_stands(
    folder, monkeypatch, kind, prior
):
    monkeypatch.setattr(Recorded, "kind", kind)
    monkeypatch.setattr(encode.numerics, "CHUNK", 40)
    model = new(latent_dim=2, prior=prior)
    order = [6, 0, 0, 3, *range(7), 3]
    np.save(folder.path / "other.npy", IMAGES[order])
    here, _ = encoded(model, folder)
    there, _ = encoded(model, folder, "other.npy")
    for name in ("mean", "log_var", "distortion", "rate"):
        np.testing.assert_allclose(there[name], here[name][order], rtol=1e-5, atol=1e-5)
        assert len(np.unique(here[name], axis=0)) == 7


def test_images_that_look_swapped_are_named(folder, capsys):
    images = IMAGES.copy()
    images[2:6] = 255 - images[2:6]
    np.save(folder.path / "mine.npy", images)
    encoded(new(latent_dim=2), folder)
    few = ", ".join(f"mine.npy[{i}]" for i in (2, 3, 4))
    line = f"Dark and light may be swapped: ink covers most of {few}, ...."
    assert line in capsys.readouterr().out


def test_images_that_look_blank_are_named(folder, capsys):
    images = IMAGES.copy()
    images[4] //= 3
    np.save(folder.path / "mine.npy", images)
    encoded(new(latent_dim=2), folder)
    said = capsys.readouterr().out
    assert "No pixel reaches 128 of 255 in mine.npy[4].\n" in said


def test_two_layers_have_the_latents_next_to_the_image(folder):
    model = new(stochastic_layers=2, latent_dims=(4, 3))
    assert encoded(model, folder)[0]["mean"].shape == (7, 4)
