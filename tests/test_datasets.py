"""Finding, splitting and holding out a data set."""

import numpy as np
import pytest

from core import datasets, mnist


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
        raise ValueError("cannot download x")

    monkeypatch.setattr(mnist, "fetch", unreachable)
    monkeypatch.setattr(datasets.synthetic, "draw", lambda: digits)
    said = []
    name, train_set, _ = datasets.find("auto", "", said.append)
    assert name == "synthetic" and train_set is digits[0]
    assert said == [
        "No MNIST: cannot download x. Using the built-in synthetic digits instead."
    ]
    with pytest.raises(ValueError, match="cannot download x; put the four IDX files"):
        datasets.find("fashion_mnist", "", silent)


def test_the_last_training_images_are_held_out(digits):
    train_set, test_set = digits
    data = datasets.split("tiny", train_set, test_set, 30)
    sizes = [data.record[f"{kind}_images"] for kind in ("train", "validation", "test")]
    assert sizes == [300, 30, 60] and data.record["name"] == "tiny"
    both = np.concatenate([data.train.pixels, data.validation.pixels])
    np.testing.assert_array_equal(both, train_set.images.reshape(330, 784))
    np.testing.assert_array_equal(data.validation.labels, train_set.labels[300:])
    other = datasets.split("tiny", train_set, test_set._replace(labels=1), 30)
    assert data.record["sha256"] != other.record["sha256"]


def test_what_is_evaluated_is_drawn_once_and_for_each_split_anew(digits):
    train_set, _ = digits
    data = datasets.split("tiny", train_set, train_set, 0)
    once, again, train = (
        datasets.fix(data, name, "dynamic", 0) for name in ("test", "test", "train")
    )
    np.testing.assert_array_equal(once.pixels, again.pixels)
    assert np.any(once.pixels.numpy() != train.pixels)
    grey = datasets.fix(data, "test", "none", 0)
    np.testing.assert_array_equal(grey.pixels, data.test.pixels)
