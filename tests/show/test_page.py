import base64
import html
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from core.data import batches
from core.data.datasets import Split
from core.errors import UserError
from core.evaluation.record import Evaluated
from core.model.build import build
from core.run import config
from core.settings import Model
from core.show import figures, gallery, page
from tests.conftest import run


def new(**settings):
    sizes = dict(hidden_sizes=(8,), upper_hidden_sizes=(6,), filters=(3, 4))
    model = build(Model(**sizes | settings))
    return model, model.init(0, 0.13)


def evaluated(digits, model, weights, **changes):
    """All test images, as a model evaluated them that lost most at the last."""
    pixels, labels = batches.flatten(digits[1].images) >= 128, digits[1].labels
    count, random = len(labels), np.random.default_rng(0)
    z_mean = random.standard_normal([count, model.latent_dims[0]]).astype("f4")
    images = {"distortion": np.arange(count) + 50.0, "rate": np.full(count, 7.0)}
    record = {"split": "test", "seed": 5} | changes
    return Evaluated(record, Split(pixels, tf.constant(labels)), z_mean, images)


# --- The whole page -------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(two_epochs, data_dir, tmp_path_factory):
    """(the page of a small run, what was said, its folder); the name is for HTML."""
    folder = tmp_path_factory.mktemp("pages") / "<b> & \"q\" 'a' $x"
    shutil.copytree(two_epochs, folder)
    recorded = config.read(folder)
    recorded["flags"]["run_dir"] = str(folder)
    config.write(folder, recorded)
    said, before = io.StringIO(), {path.name for path in folder.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", said)
        run({"run_dir": str(folder), "data_dir": str(data_dir)}, mode="report")
    assert {path.name for path in folder.iterdir()} == before | {"figures"}
    return (folder / "figures" / "report.html").read_text(), said.getvalue(), folder


def pictures(page):
    """{alternative text: picture} of a page."""
    found = re.findall(r'alt="([^"]*)" src="data:image/png;base64,([^"]*)"', page)
    return {
        name: Image.open(io.BytesIO(base64.b64decode(data))) for name, data in found
    }


def test_the_page_is_written_where_it_says(made):
    _, said, folder = made
    assert said.endswith(f"Page: {folder}/figures/report.html\n")
    assert [path.name for path in (folder / "figures").iterdir()] == ["report.html"]


def test_the_page_has_every_number_of_the_summary(made):
    page, said, _ = made
    lines = re.findall(r"^(\S.{12}|  \S.{10}) (.+)$", said, re.MULTILINE)
    names = [name.rstrip() for name, _ in lines]
    assert {"Test -ELBO", "  distortion", "  rate", "KL by unit"} <= {*names}
    text = html.unescape(page)
    for name, value in lines[names.index("Data set") :]:
        if name.strip() in ("Drawing the",):
            continue
        assert f"<dt>{name.rstrip()}<dd>{value}" in text


def test_the_page_says_what_was_run(made):
    page, _, folder = made
    text = html.unescape(page)
    assert "A variational autoencoder, trained for 2 epochs." in text
    assert "Model: 784-8-2-8-784, relu; loss = distortion + rate" in text
    for flag in ("--hidden_sizes=8", "--learning_rate=0.001", "--ema_decay=0.9"):
        assert f" {flag}" in text
    assert " --beta=" not in text  # it is the default
    (command,) = re.findall("python loop.py [^<]*", page)  # as a shell reads it
    assert f"--run_dir={folder}" in shlex.split(html.unescape(command))
    recorded = json.loads((folder / "config.json").read_text())
    for name, version in recorded["versions"].items():
        assert f"{name} {version}" in text


def test_the_page_has_all_pictures_of_the_run(made):
    found = pictures(made[0])
    assert [*found] == [
        *("learning curves", "latent space", "reconstructions", "interpolations"),
        *("manifold", "samples", "best and worst", "traversals", "first layer"),
    ]
    assert all(np.std(np.array(picture)) > 5 for picture in found.values())


def test_the_page_is_one_file_that_asks_for_nothing(made):
    page, _, _ = made
    assert not re.findall(r"<script|<link|@import|https?:|url\(|\bon\w+=", page)
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    assert sources and {*sources} == {"data:image/png;base64,"}
    assert "$" not in re.sub(r"\$x", "", page)  # no place is left empty


def test_names_are_escaped(made):
    page, _, folder = made
    assert "<b>" not in page and html.escape(str(folder)) in page
    assert f"<h1>{html.escape(str(folder))}</h1>" in page


def test_the_page_of_some_images_has_a_folder_of_its_own(trained, monkeypatch):
    monkeypatch.setattr(page, "picture", lambda name, draw: name)
    folder = Path(trained["run_dir"])
    asked = {"run_dir": str(folder), "data_dir": trained["data_dir"]}
    run(asked, mode="report", evaluation_images=20)
    assert (folder / "figures" / "test_20" / "report.html").exists()
    assert not (folder / "figures" / "report.html").exists()


def test_a_page_that_cannot_be_written_leaves_the_one_before(trained, monkeypatch):
    path = Path(trained["run_dir"]) / "figures" / "report.html"
    path.parent.mkdir()
    path.write_text("before")
    monkeypatch.setattr(page, "more_drawings", raising)
    asked = {"run_dir": trained["run_dir"], "data_dir": trained["data_dir"]}
    with pytest.raises(OSError, match="No space"):
        run(asked, mode="report")
    assert path.read_text() == "before" and len([*path.parent.iterdir()]) == 1


def raising(*arguments):
    raise OSError("No space left on device")


def test_without_a_run_there_is_no_page(tmp_path, data_dir):
    asked = {"run_dir": str(tmp_path / "none"), "data_dir": str(data_dir)}
    with pytest.raises(UserError, match="has no checkpoint: expected a run"):
        run(asked, mode="report")
    assert not (tmp_path / "none").exists()


# --- What the rate is made of ---------------------------------------------------------


def test_the_parts_of_the_rate_are_told_with_their_limit():
    told = page.of_rate((5.25, 0.5), 1000)
    assert "5.25 nats on which image" in told and "0.50 of KL(q(z) ‖ p(z))" in told
    assert "log N = 6.91, and" in told
    assert "log N = 6.91 (it is there: more images" in page.of_rate((6.9, 9.0), 1000)
    assert "not split for two layers" in page.of_rate(None, 1000)


# --- Pictures that are on the page alone ----------------------------------------------

KINDS = {
    "plain": {},
    "conditional": {"conditional": True},
    "mixture": {"prior": "mixture", "latent_dim": 3},
    "layers": {"stochastic_layers": 2, "latent_dims": (4, 3)},
    "conditional layers": {
        "stochastic_layers": 2,
        "latent_dims": (4, 3),
        "conditional": True,
    },
    "conv": {"architecture": "conv"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_has_its_pictures(kind, digits, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "image_rows", lambda path, **of: drawn.append(of))
    model, weights = new(**KINDS[kind])
    found = evaluated(digits, model, weights, kl_per_dim=[1.0, 2.0])
    drawings = page.more_drawings(model, weights, found)
    held = ["upper_layer_held.png"] * ("layers" in kind)
    assert [*drawings] == [
        *("best_and_worst.png", "traversals.png", "first_layer.png"),
        *held,
    ]
    for draw in drawings.values():
        draw(tmp_path / "x.png")
    for of in drawn:
        assert 0 <= figures.tile(of["rows"]).min() < 255
        assert not len(of["names"]) or len(of["names"]) == len(of["rows"])
    assert len(drawn) == len(drawings)


def test_where_no_dimension_is_active_there_is_no_traversal(digits):
    model, weights = new()
    found = evaluated(digits, model, weights, kl_per_dim=[0.0, 0.0])
    found = found._replace(z_mean=np.zeros_like(found.z_mean))
    names = [*page.more_drawings(model, weights, found)]
    assert names == ["best_and_worst.png", "first_layer.png"]


def test_best_and_worst_are_by_their_loss(digits):
    model, weights = new()
    found = evaluated(digits, model, weights)
    loss = found.images["distortion"] + found.images["rate"]
    order = np.random.default_rng(1).permutation(60)
    title, rows, names = page.best_and_worst(model, weights, found, loss, order)
    assert title == "Binarized test images by distortion + rate, and reconstructions"
    assert names[::2] == ["best", "median", "worst"]
    for i, few in enumerate((order[:10], order[25:35], order[50:])):
        assert names[2 * i + 1] == f"{loss[few[0]]:.1f} to {loss[few[-1]]:.1f}"
        images = digits[1].images[few] >= 128
        np.testing.assert_array_equal(rows[2 * i], images)
        means = gallery.decode(model, weights, found.z_mean[few], None)
        np.testing.assert_array_equal(rows[2 * i + 1], means)


def test_best_and_worst_of_few_images_are_the_same(digits):
    model, weights = new()
    found = evaluated(digits, model, weights)
    _, rows, _ = page.best_and_worst(model, weights, found, np.arange(60), [7])
    assert [len(row) for row in rows] == 6 * [1]


def test_traversals_are_in_the_order_of_their_kl(digits):
    """And not of variance; those that are not active have none."""
    model, weights = new(latent_dim=4)
    found = evaluated(digits, model, weights, kl_per_dim=[0.5, 9.0, 2.0, 1.0])
    found.z_mean[:, 1] = 0.3  # carries no information, whatever its KL
    found.z_mean[:, 3] *= 9
    title, rows, names = page.traversals(model, weights, found, 7)
    assert title == "Each active dimension, and the KL in nats"
    assert names == ["$z_{3}$: 2.00", "$z_{4}$: 1.00", "$z_{1}$: 0.50"]
    for row, d in zip(rows, (2, 3, 0), strict=True):
        line = np.tile(found.z_mean[7], [10, 1])
        ends = np.quantile(found.z_mean[:, d], [0.005, 0.995])
        line[:, d] = np.linspace(*ends, 10)
        np.testing.assert_array_equal(row, gallery.decode(model, weights, line, None))


def test_traversals_without_a_kl_by_dimension_are_in_the_order_of_variance(digits):
    for settings, lower in (
        ({"prior": "mixture", "latent_dim": 3}, ""),
        ({"stochastic_layers": 2, "latent_dims": (3, 2)}, " of the lower layer"),
    ):
        model, weights = new(**settings)
        found = evaluated(digits, model, weights, kl_per_dim=[4.0])
        found.z_mean[:, 2] *= 5
        title, _, names = page.traversals(model, weights, found, 7)
        assert title == f"Each active dimension{lower}, and the variance of its " + (
            "posterior means"
        )
        variance = np.var(found.z_mean, axis=0)
        assert names[0] == f"$z_{{3}}$: {variance[2]:.2f}" and len(names) == 3


@pytest.mark.parametrize("conditional", [False, True])
def test_the_upper_layer_is_held_in_a_row(conditional):
    model, weights = new(**KINDS["layers"], conditional=conditional)
    given = []

    def sample(weights, noise, y):
        given.append((noise.numpy().reshape(10, 10, 7), y))
        return model.sample(weights, noise, y)

    _, rows, _ = page.upper_held(model._replace(sample=sample), weights, 5)
    ((noise, y),) = given
    assert rows.shape == (10, 10, 28, 28)
    assert np.all(noise[..., 4:] == noise[:, :1, 4:])
    assert len(np.unique(noise[:, 0, 4:], axis=0)) == 10  # one a row
    assert len(np.unique(noise[..., :4].reshape(100, 4), axis=0)) == 100
    if conditional:
        labels = np.argmax(y, axis=1).reshape(10, 10)
        np.testing.assert_array_equal(labels, np.arange(10)[:, None] + 0 * labels)
    else:
        assert y is None


@pytest.mark.parametrize("conditional", [False, True])
def test_first_layer_weights_are_those_of_each_unit(conditional):
    model, weights = new(conditional=conditional, hidden_sizes=(70,))
    w = weights["encoder"]["dense_0"]["w"]
    scales = np.random.default_rng(0).permutation(70) + 1.0
    w.assign(w * scales)
    _, rows, _ = page.first_layer(weights["encoder"])
    assert [len(row) for row in rows] == 6 * [10]  # those of greatest norm
    largest = w.numpy()[:784, np.argmax(scales)].reshape(28, 28)
    expected = 0.5 + 0.5 * largest / np.abs(largest).max()
    np.testing.assert_allclose(rows[0][0], expected, rtol=1e-6)
    sheet = figures.tile(rows)
    assert (sheet.min(), sheet.max()) == (0, 255)


def test_filters_are_shown_as_large_as_images():
    _, weights = new(architecture="conv", filters=(5, 4))
    w = weights["encoder"]["conv_0"]["w"].numpy()[:, :, 0]
    _, ((*found,),), _ = page.first_layer(weights["encoder"])
    order = np.argsort(-np.linalg.norm(w, axis=(0, 1)))
    for image, i in zip(found, order, strict=True):
        shown = 0.5 + 0.5 * w[..., i] / np.abs(w[..., i]).max()
        np.testing.assert_allclose(image[4:27:9, 4:27:9], shown, rtol=1e-6)
        assert image.shape == (28, 28)
