import json

import numpy as np
import pytest

from core import rng, settings
from core.data import datasets
from core.evaluation import bounds, likelihood, probes, record
from core.model.build import build

SIZES = dict(hidden_sizes=(8,), upper_hidden_sizes=(6,))
ONE = settings.Model(latent_dim=3, **SIZES)
TWO = settings.Model(stochastic_layers=2, latent_dims=(4, 3), **SIZES)
FIELDS = (
    "split dataset binarization seed given_labels images negative_elbo distortion rate "
    "kl_samples active_units kl_per_dim knn_accuracy linear_accuracy seconds"
).split()
OF_NLL = "nll nll_standard_error importance_samples bfloat16".split()
RUN = settings.Run(seed=5, jit=False)


def data_of(digits, **changes):
    """300 images to train with, 30 to validate, 60 to test, of `settings.Data`."""
    changes = {"validation_size": 30} | changes
    return datasets.split("tiny", *digits, settings.Data(**changes))


@pytest.fixture
def data(digits):
    return data_of(digits)


@pytest.fixture(scope="module")
def one():
    """(a model of one layer, its weights)."""
    model = build(ONE)
    return model, model.init(0, 0.13)


def evaluate(model, data, **changes):
    return record.evaluation(*model, data, RUN, settings.Evaluation(**changes))


def test_an_evaluation_is_one_flat_record_of_what_was_measured(one, data):
    record_, split, z_mean, images = evaluate(one, data)
    assert list(record_) == FIELDS
    assert record_ == json.loads(json.dumps(record_))
    test = datasets.fix(data, "test", 5)
    np.testing.assert_array_equal(split.pixels, test.pixels)
    np.testing.assert_array_equal(split.labels, test.labels)
    found = bounds.evaluate(*one, test, "test", 5)
    assert record_ == record_ | {
        "split": "test",
        "dataset": "tiny",
        "binarization": "dynamic",
        "seed": 5,
        "given_labels": False,
        "images": 60,
        "negative_elbo": found.negative_elbo,
        "distortion": found.distortion,
        "rate": found.rate,
        "kl_samples": 0,
        "active_units": found.active_units[0],
        "kl_per_dim": found.kl_per_dim[0].tolist(),
    }
    assert record_["seconds"] > 0
    np.testing.assert_array_equal(z_mean, found.z_mean)
    assert images.keys() == {"distortion", "rate"}
    for name, numbers in images.items():
        assert len(numbers) == 60 and np.ptp(numbers) > 0
        assert np.mean(numbers) == pytest.approx(record_[name], rel=1e-6)


def test_two_layers_have_their_units_apart(data):
    model = build(TWO)
    found = evaluate((model, model.init(0)), data).record
    assert list(found) == FIELDS and found == json.loads(json.dumps(found))
    assert len(found["active_units"]) == 2
    assert [len(kls) for kls in found["kl_per_dim"]] == [4, 3]
    assert sum(map(sum, found["kl_per_dim"])) == pytest.approx(found["rate"])
    assert found["kl_samples"] == 10


@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
def test_the_kl_of_a_learned_prior_is_one_number_by_ten_samples(data, prior):
    model = build(settings.Model(latent_dim=3, prior=prior, **SIZES))
    found = evaluate((model, model.init(0, 0.13)), data, evaluation_images=20).record
    assert list(found) == FIELDS and found == json.loads(json.dumps(found))
    assert found["kl_samples"] == 10 and isinstance(found["active_units"], int)
    assert found["kl_per_dim"] == [pytest.approx(found["rate"])]


def test_the_first_images_of_either_split_can_be_evaluated(one, data):
    changes = dict(evaluation_split="validation", evaluation_images=7)
    record_, split, z_mean, _ = evaluate(one, data, **changes)
    assert (record_["split"], record_["images"]) == ("validation", 7)
    held_out = datasets.fix(data, "validation", 5)
    np.testing.assert_array_equal(split.pixels, held_out.pixels[:7])
    np.testing.assert_array_equal(split.labels, held_out.labels[:7])
    assert z_mean.shape == (7, 3)
    more = evaluate(one, data, evaluation_images=1000).record
    assert more["images"] == 60  # all that there are


def test_the_loss_of_grey_pixels_is_no_elbo(one, digits):
    found = evaluate(one, data_of(digits, binarization="none")).record
    names = {"negative_elbo": "loss"}
    assert list(found) == [names.get(name, name) for name in FIELDS]
    assert found["loss"] == pytest.approx(found["distortion"] + found["rate"])


def test_labels_are_given_to_a_model_that_wants_them(data):
    model = build(settings.Model(latent_dim=3, conditional=True, **SIZES))
    weights = model.init(0)
    found = evaluate((model, weights), data, importance_samples=3).record
    assert found["given_labels"]
    others = data._replace(test=data.test._replace(labels=(data.test.labels + 1) % 10))
    other = evaluate((model, weights), others, importance_samples=3).record
    for name in ("negative_elbo", "nll"):
        assert found[name] != other[name]


def test_an_epoch_has_the_numbers_of_all_validation_images(one, data):
    held_out = datasets.fix(data, "validation", 5)
    found = bounds.evaluate(*one, held_out, "validation", 5)
    assert record.validation(*one, held_out, 5) == {
        "validation_loss": found.negative_elbo,
        "validation_distortion": found.distortion,
        "validation_rate": found.rate,
    }


def test_an_epoch_has_none_where_there_are_no_such_images(one, digits):
    none = datasets.fix(data_of(digits, validation_size=0), "validation", 5)
    assert record.validation(*one, none, 5) == {}


def test_the_probes_learn_from_the_training_images_as_evaluation_sees_them(one, data):
    found = evaluate(one, data, evaluation_images=40).record
    train, test = (datasets.fix(data, kind, 5) for kind in ("train", "test"))
    known = bounds.encode(*one, train), train.labels.numpy()
    asked = bounds.encode(*one, test)[:40], test.labels.numpy()[:40]
    assert found["knn_accuracy"] == probes.nearest_neighbors_accuracy(*known, *asked)
    assert found["linear_accuracy"] == probes.linear_accuracy(*known, *asked)
    assert 0.1 < found["knn_accuracy"] < 1


# --- -log p(x) ------------------------------------------------------------------------


@pytest.mark.parametrize("kind, index", [("validation", 0), ("test", 1)])
def test_nll_is_the_mean_over_images_with_its_standard_error(one, data, kind, index):
    """Of 25 images: a tile, and a part of one."""
    changes = dict(evaluation_split=kind, evaluation_images=25, importance_samples=30)
    found, split, _, images = evaluate(one, data, **changes)
    assert list(found) == [*FIELDS[:-1], *OF_NLL, "seconds"]
    key = rng.key(5, rng.Stream.LIKELIHOOD, index)
    asked = settings.Evaluation(importance_samples=30)
    tiles = [*likelihood.log_marginal(*one, split, key, asked, RUN)]
    log_p = np.concatenate(tiles)
    assert len(log_p) == 25
    np.testing.assert_array_equal(images["log_p"], log_p)
    assert found["nll"] == pytest.approx(-np.mean(log_p), rel=1e-12)
    error = np.sqrt(np.sum((log_p - log_p.mean()) ** 2) / 24 / 25)
    assert found["nll_standard_error"] == pytest.approx(error, rel=1e-9)
    assert found["importance_samples"] == 30 and found["bfloat16"] is False
    assert found["nll"] < found["negative_elbo"] + 1


def test_a_log_p_that_is_known_is_not_computed(one, data, monkeypatch):
    """All else is; and what is known counts only where it is asked for."""
    monkeypatch.setattr(likelihood, "log_marginal", None)
    known = {"log_p": np.array([-6.0, -8.0]), "rate": np.array([-1.0])}
    found = record.evaluation(
        *one, data, RUN, settings.Evaluation(importance_samples=3), known
    )
    assert found.images["log_p"] is known["log_p"] and len(found.images["rate"]) == 60
    found = found.record
    assert list(found) == [*FIELDS[:-1], *OF_NLL, "seconds"]
    assert found["nll"] == 7 and found["nll_standard_error"] == 1
    without = evaluate(one, data).record | {"seconds": found["seconds"]}
    assert {name: found[name] for name in without} == without
    asked = settings.Evaluation(), known
    assert "nll" not in record.evaluation(*one, data, RUN, *asked).record


def test_labels_are_those_of_the_images(one, data, monkeypatch):
    """Row by row: what the probes are asked, and what is drawn."""
    data = data._replace(binarization="threshold")
    asked = []
    monkeypatch.setattr(probes, "linear_accuracy", lambda *a: asked.append(a) or 0.0)
    found = evaluate(one, data, evaluation_images=40)
    z, labels, test_z, test_labels = asked[0]
    for kind, z_mean, its_labels in (
        ("train", z, labels),
        ("test", test_z, test_labels),
        ("test", found.z_mean, found.split.labels),
    ):
        images, there = getattr(data, kind)
        x = (images.numpy() >= 128).astype(np.float32)[: len(z_mean)]
        np.testing.assert_allclose(one[0].encode(one[1], x)[0], z_mean, atol=1e-5)
        np.testing.assert_array_equal(its_labels, there[: len(z_mean)])


def test_a_single_image_has_no_standard_error(one, data):
    changes = dict(evaluation_images=1, importance_samples=3, bfloat16=True)
    found = evaluate(one, data, **changes).record
    assert found["nll_standard_error"] is None and found["bfloat16"] is True
    assert found == json.loads(json.dumps(found))


@pytest.mark.parametrize("run, compiled", [({}, True), ({"jit": False}, False)])
def test_nll_is_compiled_as_training_is(one, data, monkeypatch, run, compiled):
    seen = []

    def watched(model, weights, split, key, settings, run_settings):
        seen.append(run_settings.jit)
        yield np.zeros(len(split.pixels))

    monkeypatch.setattr(likelihood, "log_marginal", watched)
    asked = settings.Evaluation(importance_samples=3)
    found = record.evaluation(*one, data, settings.Run(**run), asked).record
    assert seen == [compiled] and found["nll"] == 0
