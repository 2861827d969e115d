import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from core import rng
from core.data import batches, datasets
from core.errors import UserError
from core.model import distributions, networks, terms
from core.model.build import build
from core.settings import Model
from core.show import export, gallery
from tests.show.test_encode import Recorded

SIZES = {"hidden_sizes": (8, 7), "upper_hidden_sizes": (6,), "filters": (2, 3)}
SIZES |= {"prior_components": 3, "flow_layers": 2, "flow_units": 4}
TWO = {"stochastic_layers": 2, "latent_dims": (4, 3)}
CONV, LABELS = {"architecture": "conv"}, {"conditional": True}
KINDS = {
    "gelu": {},
    "relu": {"activation": "relu", "hidden_sizes": (5,) * 12},
    "tanh": {"activation": "tanh"},
    "silu": {"activation": "silu"} | LABELS,
    "mixture": {"prior": "mixture"},
    "vamp": {"prior": "vamp"},
    "flow": {"prior": "flow"} | LABELS,
    "two layers": TWO,
    "two layers, labels": TWO | LABELS | {"prior": "mixture"},
    "two layers, vamp": TWO | {"prior": "vamp"},
    "conv": CONV,
    "conv, labels": CONV | LABELS | {"prior": "flow"},
    "two layers, conv": CONV | TWO,
}
IMAGES = (np.random.default_rng(0).random([5, 28, 28]) < 0.2).astype(np.float32)
CLASSES = np.array([3, 0, 9, 9, 1], np.int32)
Z = np.random.default_rng(1).standard_normal([6, 4]).astype(np.float32)


def new(**settings):
    """Settings, model and weights that are not where they begin."""
    settings = Model(**SIZES | settings)
    model, random = build(settings), np.random.default_rng(2)
    weights = model.init(0, 0.13)
    for variable in tf.nest.flatten(weights):
        variable.assign_add(0.1 * random.standard_normal(variable.shape))
    return settings, model, weights


def exported(path, **settings):
    """The model and the weights that `export/` in a new folder is of."""
    path.mkdir(exist_ok=True)
    folder = Recorded(path)
    settings, model, weights = new(**settings)
    export.export(model, weights, None, folder, None, settings)
    return model, weights


def expected(model, weights):
    """What the functions of an export are to give, by the model's own."""
    few = Z[:, : model.latent_dims[0]]
    y = batches.one_hot(CLASSES) if model.conditional else None
    six = batches.one_hot(np.arange(6)) if model.conditional else None
    x = tf.constant(IMAGES.reshape(5, 784))
    mean, log_var = model.encode(weights, x, y)
    key = rng.key(7, rng.Stream.LIKELIHOOD, datasets.INDEX["own"])
    shape = [5, sum(model.latent_dims)]
    noise = tf.stack([rng.normal(rng.fold(key, i), shape) for i in (0, 1)])
    log_w = terms.log_importance_weights(model.infer(weights, x, noise, y), x)
    rows = np.arange(6)
    samples = rng.key(3, rng.Stream.SAMPLE, 1)
    return {
        "mean": mean,
        "log_var": log_var,
        "decoded": gallery.pixel_means(model.decode(weights, few, six)),
        "again": gallery.pixel_means(model.decode(weights, mean, y)),
        "samples": gallery.prior_samples(model, weights, samples, rows, rows),
        "log_p": distributions.log_mean_exp(log_w),
    }


def by_functions(vae, labeled, dims):
    """The same by an export's functions, or by those of its SavedModel."""
    y, six = (
        {"labels": tf.constant(labels, tf.int32)} if labeled else {}
        for labels in (CLASSES, np.arange(6))
    )
    images, z = tf.constant(IMAGES), tf.constant(Z[:, :dims])
    return {
        **vae["encode"](images=images, **y),
        "decoded": vae["decode"](z=z, **six)["pixel_means"],
        "again": vae["reconstruct"](images=images, **y)["pixel_means"],
        "samples": vae["sample"](count=tf.constant(6), seed=tf.constant(3), **six)[
            "pixel_means"
        ],
        "log_p": vae["log_likelihood"](
            images=images, num_samples=tf.constant(2), seed=tf.constant(7), **y
        )["log_likelihood"],
    }


def assert_equal(found, wanted, names):
    for name in names:
        scale = np.max(np.abs(wanted[name]))
        np.testing.assert_allclose(
            found[name], wanted[name], rtol=1e-5, atol=1e-5 * scale, err_msg=name
        )


@pytest.mark.parametrize("settings", [{}, TWO | LABELS], ids=["plain", "two, labels"])
def test_the_functions_are_the_models_own(settings):
    _, model, weights = new(**settings)
    made = export.functions(model, weights, "dynamic")
    found = by_functions(made, model.conditional, model.latent_dims[0])
    assert_equal(found, expected(model, weights), found)


@pytest.fixture(scope="module")
def checked():
    """Functions of a conditional model of binary pixels."""
    _, model, weights = new(conditional=True)
    return export.functions(model, weights, "dynamic")


Y = tf.constant([1, 2])
BLANK = tf.zeros([2, 28, 28])


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("encode", (BLANK + 0.3, Y), "0 and 1 alone, as by images >= 0.5.*0.3"),
        ("reconstruct", (BLANK + 2, Y), "0 and 1 alone"),
        ("log_likelihood", (BLANK + 0.3, 5, 0, Y), "0 and 1 alone"),
        ("encode", (BLANK * np.nan, Y), "0 and 1 alone"),
        ("encode", (tf.zeros([2, 27, 28]), Y), "of 784 numbers each, got the shape"),
        ("encode", (BLANK[0], Y), "of 784 numbers each, got the shape.*28 28"),
        ("decode", (tf.zeros([2, 3]), Y), "z: expected .*of 2 numbers each"),
        ("decode", (tf.zeros([2, 2]), Y[:1]), "labels: expected one from 0 to 9"),
        ("decode", (tf.zeros([2, 2]), Y + 8), "labels: expected one from 0 to 9"),
        ("sample", (-1, 0, Y), "count: expected >= 0"),
        ("sample", (3, 0, Y), "labels: expected one from 0 to 9 for each"),
        ("log_likelihood", (BLANK, 0, 0, Y), "num_samples: expected > 0"),
    ],
)
def test_wrong_inputs_are_refused_in_words(checked, name, inputs, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        checked[name](*inputs)
    assert re.search(message, str(error.value), re.DOTALL)


def test_any_number_of_images_will_do(checked):
    for count in (0, 1, 3):
        labels = tf.zeros([count], tf.int32)
        found = checked["reconstruct"](tf.zeros([count, 28, 28]), labels)
        assert found["pixel_means"].shape == (count, 28, 28)
        assert checked["sample"](count, 0, labels)["logits"].shape == (count, 28, 28)


def test_a_model_of_grey_pixels_takes_them_but_has_no_likelihood_of_them():
    _, model, weights = new()
    made = export.functions(model, weights, "none")
    assert made["encode"](BLANK + 0.3)["mean"].shape == (2, 2)
    for name, wrong in (("encode", (BLANK + 2,)), ("log_likelihood", (BLANK, 1, 0))):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected pixels"):
            made[name](*(wrong[0] + 0.3, *wrong[1:]))


# --- What is written ------------------------------------------------------------------


@pytest.fixture
def unsaved(monkeypatch):
    """No SavedModel, which takes the most time, but a folder in its place."""

    def save(module, path, *more):
        Path(path).mkdir()

    monkeypatch.setattr(tf.saved_model, "save", save)


def test_parameters_are_written_by_their_names(tmp_path, unsaved):
    model, weights = exported(tmp_path, hidden_sizes=(5,) * 12, prior="mixture")
    with np.load(tmp_path / "export/weights.npz") as file:
        found = dict(file)
    named = dict(networks.named_variables(weights))
    assert found.keys() == named.keys()
    for name in named:
        np.testing.assert_array_equal(found[name], named[name])
    described = json.loads((tmp_path / "export/model.json").read_text())
    layers = [f"dense_{i}" for i in range(12)] + ["output"]
    assert described["networks"] == {"encoder": layers, "decoder": layers}
    assert described["model"]["activation"] == "gelu" and described["step"] == 30
    assert described["binarization"] == "dynamic"


def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else(
    tmp_path, unsaved
):
    exported(tmp_path, latent_dim=2)
    (tmp_path / "export.partial").mkdir()  # of a process that was killed
    exported(tmp_path, latent_dim=3)
    described = json.loads((tmp_path / "export/model.json").read_text())
    assert described["model"]["latent_dim"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["export"]
    (tmp_path / "export/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="export holds something else .*rename it"):
        exported(tmp_path)
    assert (tmp_path / "export/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "error", [OSError(28, "full"), tf.errors.InternalError(None, None, "full")]
)
def test_an_export_is_there_whole_or_as_it_was(tmp_path, unsaved, monkeypatch, error):
    exported(tmp_path, latent_dim=2)
    before = (tmp_path / "export/weights.npz").read_bytes()

    def fail(*job):
        raise error

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises((OSError, UserError), match="full"):
        exported(tmp_path, latent_dim=3)
    assert (tmp_path / "export/weights.npz").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


# --- In another process ---------------------------------------------------------------


def blocks():
    """The code in the README of an export."""
    return re.findall(r"```python\n(.*?)```", export.README.read_text(), re.DOTALL)


def test_the_numpy_lines_are_about_twenty():
    _, code, _ = blocks()
    assert len([line for line in code.split("\n") if line.strip()]) <= 25


ALONE = """if True:
    import importlib.util, sys
    for name in ("core", "loop", "tests", "flags"):
        assert importlib.util.find_spec(name) is None, name
    import inspect, os
    import numpy as np
    given = dict(np.load("../given.npz"))
    IMAGES, CLASSES, Z = (given[name] for name in ("IMAGES", "CLASSES", "Z"))
    np_, tf_, conv_ = (given[f"code_{i}"].item() for i in (1, 0, 2))
    for kind in sys.argv[1:]:
        os.chdir(f"../{kind}/export")
        numpy = {}
        exec(np_, numpy)
        if numpy["spec"]["model"]["architecture"] == "conv":
            exec(conv_, numpy)
        assert "tensorflow" not in sys.modules
        labels = [CLASSES, np.arange(6)]
        if not numpy["spec"]["model"]["conditional"]:
            labels = [None, None]
        mean, log_var = numpy["encode"](IMAGES, labels[0])
        decoded = numpy["decode"](Z[:, : mean.shape[1]], labels[1])
        np.savez("../numpy.npz", mean=mean, log_var=log_var, decoded=decoded)
        os.chdir("..")
    import tensorflow as tf
    for kind in sys.argv[1:]:
        os.chdir(f"../{kind}/export")
        vae = tf.saved_model.load("saved_model")
        labeled = hasattr(vae, "decode") and len(vae.signatures["decode"].inputs)
        labeled = "labels" in str(vae.signatures["decode"].structured_input_signature)
        dims = np.load("../numpy.npz")["mean"].shape[1]
        found = by_functions(vae.signatures, labeled, dims)
        np.savez("../found.npz", **found)
        if not labeled:
            lines = {"grey": IMAGES, "tf": tf}
            exec(tf_, lines)
            assert lines["new"].shape == (16, 28, 28) and lines["log_p"].shape == (5,)
            np.testing.assert_allclose(lines["again"], found["again"], rtol=1e-6)
        os.chdir("..")
"""


@pytest.mark.slow
def test_every_kind_of_model_is_rebuilt_where_this_project_is_not(tmp_path):
    """By TensorFlow alone and by the lines of NumPy, as they stand in the README."""
    import inspect

    wanted = {k: expected(*exported(tmp_path / k, **KINDS[k])) for k in KINDS}
    code = {f"code_{i}": block for i, block in enumerate(blocks())}
    given = dict(IMAGES=IMAGES, CLASSES=CLASSES, Z=Z, **code)
    np.savez(tmp_path / "given.npz", **given)
    script = ALONE.replace(
        "    given = dict",
        "\n".join(f"    {line}" for line in inspect.getsource(by_functions).split("\n"))
        + "\n    given = dict",
        1,
    )
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-I", "-c", script, *KINDS],
        cwd=tmp_path / "gelu",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    for kind in KINDS:
        for name, parts in (("numpy", "mean log_var decoded"), ("found", "")):
            with np.load(tmp_path / kind / f"{name}.npz") as found:
                assert_equal(found, wanted[kind], parts.split() or [*wanted[kind]])
