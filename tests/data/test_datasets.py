"""Finding, splitting and holding out a data set."""

import numpy as np
import pytest

from core import settings as settings_of
from core.data import batches, datasets, download
from core.data.digits import Digits
from core.errors import UserError


def silent(text):
    pytest.fail(f"unexpectedly said {text}")


def test_a_folder_is_named_by_itself_and_needs_no_network(data_dir, digits):
    name, *found = datasets.find("auto", str(data_dir), silent)
    assert name == "tiny"
    for ours, theirs in zip(found, digits, strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_only_auto_has_a_substitute(monkeypatch, digits):
    def unreachable(*arguments):
        raise UserError("cannot download x")

    monkeypatch.setattr(download, "fetch", unreachable)
    monkeypatch.setattr(datasets.synthetic, "draw", lambda: digits)
    said = []
    name, train_set, _ = datasets.find("auto", "", said.append)
    assert name == "synthetic" and train_set is digits[0]
    assert said == [
        "No MNIST: cannot download x. Using the built-in synthetic digits instead."
    ]
    with pytest.raises(UserError, match="cannot download x; put the four IDX files"):
        datasets.find("fashion_mnist", "", silent)


def test_what_cannot_be_had_is_no_reason_for_a_mistake_in_the_code(monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        datasets.find("auto", "", silent)


def split(train_set, test_set, **settings):
    return datasets.split("tiny", train_set, test_set, settings_of.Data(**settings))


def test_the_last_training_images_are_held_out(digits):
    train_set, test_set = digits
    data = split(*digits, validation_size=30, binarization="static")
    sizes = [data.record[f"{kind}_images"] for kind in ("train", "validation", "test")]
    assert sizes == [300, 30, 60] and data.record["name"] == "tiny"
    assert data.binarization == "static"
    both = np.concatenate([data.train.pixels, data.validation.pixels])
    np.testing.assert_array_equal(both, train_set.images.reshape(330, 784))
    np.testing.assert_array_equal(data.train.labels, train_set.labels[:300])
    np.testing.assert_array_equal(data.validation.labels, train_set.labels[300:])
    np.testing.assert_array_equal(data.test.labels, test_set.labels)
    labels = test_set.labels.copy()
    labels[0] ^= 1
    other = split(train_set, test_set._replace(labels=labels), validation_size=30)
    assert data.record["sha256"] != other.record["sha256"]


def test_loading_is_finding_and_splitting(data_dir, digits):
    settings = settings_of.Data(data_dir=str(data_dir), validation_size=30)
    found, expected = (
        datasets.load(settings, silent),
        split(*digits, validation_size=30),
    )
    assert found.record == expected.record and found.binarization == "dynamic"
    np.testing.assert_array_equal(found.train.pixels, expected.train.pixels)


def test_some_images_are_left_to_train_on(digits):
    for size in (330, 331):
        with pytest.raises(
            UserError, match=f"--validation_size={size}.* less than 330"
        ):
            split(*digits, validation_size=size)
    assert split(*digits, validation_size=329).record["train_images"] == 1


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_split_are_digits(digits, which):
    """Another program's images may come in floats, or flat."""
    sets = list(digits)
    sets[which] = Digits(sets[which].images / 255, sets[which].labels)
    name = ("training", "test")[which]
    with pytest.raises(UserError, match=f"the {name} set of tiny: expected images"):
        split(*sets, validation_size=0)


def test_a_batch_is_no_larger_than_the_training_set(digits):
    data = split(*digits, validation_size=30)
    datasets.expect_steps(data, settings_of.Training(batch_size=300), False)
    with pytest.raises(UserError, match="--batch_size=301: expected at most 300"):
        datasets.expect_steps(data, settings_of.Training(batch_size=301), False)


def test_every_step_has_random_numbers_of_its_own(digits):
    data = split(*digits, validation_size=30)
    settings = settings_of.Training(epochs=2**28 // 15, batch_size=20)
    datasets.expect_steps(data, settings, False)
    settings = settings_of.Training(epochs=2**28 // 15 + 1, batch_size=20)
    with pytest.raises(UserError, match="at most 268,435,456 steps.*fewer --epochs"):
        datasets.expect_steps(data, settings, False)


@pytest.mark.parametrize("which", [0, 1])
def test_a_condition_is_one_of_ten(digits, which):
    settings, sets = settings_of.Training(), list(digits)
    labels = sets[which].labels.copy()
    labels[0] = 10
    sets[which] = sets[which]._replace(labels=labels)
    data = split(*sets, validation_size=30)
    datasets.expect_steps(data, settings, False)
    with pytest.raises(UserError, match="0 to 9 for --conditional, got 10 in tiny"):
        datasets.expect_steps(data, settings, True)
    datasets.expect_steps(split(*digits, validation_size=30), settings, True)


def test_what_is_evaluated_is_drawn_once_and_for_each_split_anew(digits):
    train_set, _ = digits
    data = split(train_set, train_set, validation_size=0)
    once, again, train = (
        datasets.fix(data, kind, 0) for kind in ("test", "test", "train")
    )
    np.testing.assert_array_equal(once.pixels, again.pixels)
    assert np.any(once.pixels.numpy() != train.pixels)
    assert np.any(once.pixels.numpy() != datasets.fix(data, "test", 1).pixels)
    np.testing.assert_array_equal(once.labels, data.test.labels)
    grey = split(train_set, train_set, validation_size=0, binarization="none")
    fixed = datasets.fix(grey, "test", 0)
    np.testing.assert_array_equal(fixed.pixels, grey.test.pixels)


def test_the_splits_keep_their_places_in_the_random_stream(digits):
    """Else a run of before would be evaluated on other pixels."""
    data = split(*digits, validation_size=30)
    for index, kind in enumerate(("validation", "test", "train")):
        pixels = getattr(data, kind).pixels
        expected = batches.fixed_pixels(pixels, "dynamic", 5, index)
        np.testing.assert_array_equal(datasets.fix(data, kind, 5).pixels, expected)
