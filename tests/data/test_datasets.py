"""Finding, splitting and holding out a data set."""

import re

import numpy as np
import pytest

from core import settings as settings_of
from core.data import binarization, datasets, download
from core.data.digits import Digits, checksum
from core.errors import UserError
from tests.conftest import write_idx_folder


def silent(text):
    pytest.fail(f"unexpectedly said {text}")


def test_a_folder_is_named_by_itself_and_needs_no_network(data_dir, digits):
    name, *found = datasets.find("auto", str(data_dir), silent)
    assert name == "tiny"
    for ours, theirs in zip(found, digits, strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


@pytest.mark.parametrize(
    "name", ["mnist", "fashion_mnist", "synthetic", "MNIST", "Fashion-MNIST", "mnist2"]
)
def test_a_folders_name_is_no_claim(tmp_path, digits, name):
    """It is said, and kept in the records, that it is only what a folder is called."""
    folder = write_idx_folder(tmp_path / name, *digits)
    settings = settings_of.Data(data_dir=str(folder), validation_size=30)
    assert datasets.load(settings, silent).record["name"] == f"{name} (a folder)"


@pytest.fixture
def published(monkeypatch, digits):
    """MNIST is what `digits` are."""
    monkeypatch.setitem(datasets.DIGESTS, checksum(*digits), "mnist")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("dataset", ["auto", "mnist"])
@pytest.mark.parametrize("gz", [False, True])
def test_mnist_is_known_in_any_folder(tmp_path, digits, monkeypatch, dataset, gz):
    monkeypatch.setattr(download, "fetch", lambda *a: pytest.fail("downloads"))
    folder = write_idx_folder(tmp_path / "any", *digits, gz=gz)
    name, train_set, _ = datasets.find(dataset, str(folder), silent)
    assert name == "mnist"
    np.testing.assert_array_equal(train_set.images, digits[0].images)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("change", ["a pixel", "a label", "order", "sets"])
def test_what_is_asked_for_as_mnist_has_its_digest(tmp_path, digits, change):
    train_set, test_set = (Digits(d.images.copy(), d.labels.copy()) for d in digits)
    if change == "a pixel":
        test_set.images[-1, 27, 27] ^= 1
    elif change == "a label":
        train_set.labels[-1] ^= 1
    elif change == "order":
        train_set = Digits(train_set.images[::-1], train_set.labels[::-1])
    else:
        train_set, test_set = test_set, train_set
    folder = write_idx_folder(tmp_path / "mnist", train_set, test_set)
    with pytest.raises(UserError, match="--dataset=mnist: expected MNIST .*got") as e:
        datasets.find("mnist", str(folder), silent)
    message = str(e.value).replace(str(tmp_path), "")
    assert "--data_dir=/mnist" in message and len(message) <= 200


def test_the_digest_of_mnist_is_kept_beside_those_of_its_files():
    assert sorted(datasets.DIGESTS.values()) == ["mnist", "synthetic"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in datasets.DIGESTS)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("way", ["a folder", "arrays"])
def test_ink_of_one_is_refused(tmp_path, digits, which, way):
    sets = list(digits)
    sets[which] = sets[which]._replace(images=(sets[which].images > 99).view(np.uint8))
    settings = settings_of.Data(data_dir=str(tmp_path / "a"), validation_size=30)
    write_idx_folder(tmp_path / "a", *sets)
    with pytest.raises(UserError, match="got 0 and 1 alone: multiply them by 255"):
        if way == "arrays":
            datasets.split("mine", *sets, settings)
        else:
            datasets.load(settings, silent)


def test_what_is_strange_about_the_data_is_said_when_they_are_loaded(tmp_path, digits):
    train_set, test_set = digits
    rows = np.argsort(train_set.labels, kind="stable")
    train_set = Digits(255 - train_set.images[rows], train_set.labels[rows])
    folder = write_idx_folder(tmp_path, train_set, test_set)
    said = []
    settings = settings_of.Data(data_dir=str(folder), validation_size=40)
    record = datasets.load(settings, said.append).record
    assert len(said) == 3 and "Ink covers 87% of the training images" in said[0]
    assert "class that validation has: 9" in said[1] and "test has: 9" in said[2]
    assert record["classes"] == list(range(9))


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
    with pytest.raises(UserError, match="cannot download x; use --data_dir=DIR or"):
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


@pytest.mark.parametrize("label, got", [(10, "0 to 10"), (-1, "-1 to 9")])
@pytest.mark.parametrize("which, image", [(0, 0), (0, -1), (1, 0)])
def test_a_condition_is_one_of_ten(digits, which, image, label, got):
    """In training, validation and test images."""
    settings, sets = settings_of.Training(), list(digits)
    labels = sets[which].labels.astype(int)
    labels[image] = label
    sets[which] = sets[which]._replace(labels=labels)
    data = split(*sets, validation_size=30)
    datasets.expect_steps(data, settings, False)
    with pytest.raises(UserError, match=f"0 to 9 for --conditional, got {got} in"):
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
        expected = binarization.fixed_pixels(pixels, "dynamic", 5, index)
        np.testing.assert_array_equal(datasets.fix(data, kind, 5).pixels, expected)
