import re

import numpy as np
import pytest

from core.data.digits import Digits, checksum, expect_digits, remarks
from core.errors import UserError


def test_checksum_sees_one_changed_pixel(digits):
    train_set, test_set = digits
    changed = Digits(train_set.images.copy(), train_set.labels)
    changed.images[5, 14, 14] ^= 1
    assert checksum(changed, test_set) != checksum(*digits)
    assert checksum(*digits) == checksum(*digits)


def test_checksum_sees_one_changed_label(digits):
    train_set, test_set = digits
    labels = test_set.labels.copy()
    labels[7] ^= 1
    assert checksum(train_set, Digits(test_set.images, labels)) != checksum(*digits)


def test_checksum_is_of_what_is_there_not_of_how_it_lies(digits):
    """Part of a larger array, or turned in memory, it is the same data."""
    views = [
        Digits(np.asfortranarray(images), np.repeat(labels, 2)[::2])
        for images, labels in digits
    ]
    assert checksum(*views) == checksum(*digits)


BLANK, LABELS = np.zeros([3, 28, 28], np.uint8), np.zeros(3, np.uint8)
INK = np.arange(3 * 784).reshape(3, 28, 28) % 256
NO_DIGITS = {
    "floats": (BLANK / 255, LABELS, r"float64 \[3, 28, 28\]; of floats .* np.rint"),
    "int64": (BLANK.astype(np.int64), LABELS, "images as uint8.*got int64"),
    "flat": (BLANK.reshape(3, 784), LABELS, r"got uint8 \[3, 784\]$"),
    "27 rows": (BLANK[:, 1:], LABELS, r"got uint8 \[3, 27, 28\]"),
    "channels": (BLANK[..., None], LABELS, r"got uint8 \[3, 28, 28, 1\]"),
    "one image": (BLANK[0], LABELS, r"got uint8 \[28, 28\]"),
    "too few labels": (BLANK, LABELS[1:], r"each of 3 images.* uint8 \[2\]"),
    "no labels": (BLANK, None, "got object"),
    "one-hot labels": (BLANK, np.eye(10)[LABELS].astype(int), r"\[3, 10\]"),
    "labels as floats": (BLANK, LABELS / 1, "whole number.* got float64"),
    "ink of 1": (INK > 99, LABELS, "from 0 to 255, got bool"),
    "ink of 1, uint8": (
        (INK > 99).view(np.uint8),
        LABELS,
        "to 255 for ink, got 0 and 1",
    ),
}


@pytest.mark.parametrize("case", NO_DIGITS)
def test_what_is_no_digits_is_refused_and_named(case):
    images, labels, message = NO_DIGITS[case]
    with pytest.raises(UserError, match=f"the test set: expected.*{message}") as error:
        expect_digits(Digits(images, labels), "the test set")
    assert len(str(error.value)) <= 200


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_digits_are_taken_as_they_are(digits, dtype):
    for images, labels in digits:
        expect_digits(Digits(images, labels.astype(dtype)), "a set")
    expect_digits(Digits(BLANK[:0], LABELS[:0]), "none, as a split may be")


# --- What the data are ----------------------------------------------------------------


def of_images(change):
    return lambda digits: digits._replace(images=change(digits.images))


def of_labels(change):
    return lambda digits: digits._replace(labels=change(digits.labels))


def as_it_is(digits):
    return digits


def by_class(digits):
    rows = np.argsort(digits.labels, kind="stable")
    return Digits(digits.images[rows], digits.labels[rows])


light, shifted = of_images(lambda x: 255 - x), of_labels(lambda y: y + np.uint8(1))
STRANGE = {  # -> (of the training set, of the test set, what is said of it)
    "half ink": (
        of_images(lambda x: x // 2),
        as_it_is,
        ["pixel of the training.* 127"],
    ),
    "16 grays": (
        as_it_is,
        of_images(lambda x: x // 16),
        ["pixel of the test.* 15 of 25"],
    ),
    "three grays": (of_images(lambda x: x // 86), as_it_is, ["is 2 of 255"]),
    "light ink": (light, light, ["Ink covers 8.% of the training", "8.% of the test"]),
    "light test": (as_it_is, light, ["of the test images.*swapped"]),
    "half, light": (
        of_images(lambda x: 127 - x // 2),
        as_it_is,
        ["pixel of the training images is 127"],
    ),
    "no ink": (
        of_images(np.zeros_like),
        as_it_is,
        ["pixel of the training.* is 0 of", "300 of 300 val"],
    ),
    "all ink": (as_it_is, of_images(lambda x: x | 255), ["covers 100% of the test"]),
    "by class": (
        by_class,
        as_it_is,
        ["Class 9 is 100% of the val", "9 is 10% of the t"],
    ),
    "one class": (of_labels(lambda y: 0 * y), as_it_is, ["1, 2, 3, 4, 5, 6, 7, 8, 9"]),
    "test of one class": (
        as_it_is,
        of_labels(lambda y: 0 * y + np.uint8(3)),
        ["Class 3 is 100% of the test images and 10% of the training"],
    ),
    "a class of test alone": (
        of_labels(lambda y: np.where(y == 4, np.uint8(5), y)),
        as_it_is,
        ["of a class that test has: 4"],
    ),
    "labels from 1": (shifted, as_it_is, ["of a class that test has: 0"]),
    "labels from 1 in both": (shifted, shifted, []),
    "many classes": (
        as_it_is,
        of_labels(lambda y: np.arange(len(y)).astype(np.uint8)),
        ["of a class that test has: 10, 11, 12, .*, ...[.]$"],
    ),
    "as they are": (as_it_is, as_it_is, []),
}


@pytest.fixture(scope="module")
def many(digits):
    """(training set of 3300, test set of 600): the same ten times, but for a number in
    bits of ink, so that no image is there twice."""
    sets = []
    for first, (images, labels) in zip((0, 3300), digits, strict=True):
        images, labels = np.tile(images, (10, 1, 1)), np.tile(labels, 10)
        numbers = np.arange(first, first + len(images))[:, None]
        images[:, 0, :12] = 255 * (numbers >> np.arange(12) & 1)
        sets.append(Digits(images, labels))
    return sets


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_strange_about_a_set_is_said_with_its_figure(many, case):
    of_train, of_test, expected = STRANGE[case]
    found = remarks(of_train(many[0]), of_test(many[1]), 300)
    assert len(found) == len(expected), found
    for line, text in zip(expected, found, strict=True):
        assert re.search(line, text)
    assert all(len(text) <= 200 and "\n" not in text for text in found)


def test_what_is_held_out_decides_which_classes_are_trained_on(many):
    """Those at the end of a set that is in order: all of nine, or a part of them."""
    train_set, test_set = by_class(many[0]), many[1]
    assert remarks(train_set, test_set, 0) == []
    nines = int((train_set.labels == 9).sum())
    for held_out in (nines, nines + 1):
        found = remarks(train_set, test_set, held_out)
        assert found[0].startswith("No training image is of a class that validation")
        assert "test has: 9." in found[1]
    assert len(remarks(many[0], test_set, 3299)) <= 2  # of one image, a class at most


@pytest.mark.parametrize("shares", ["equal", "skewed"])
@pytest.mark.parametrize("held_out", [1, 60, 500])
def test_a_set_in_random_order_is_not_called_sorted(shares, held_out):
    random = np.random.default_rng(3)
    p = np.arange(1, 11) / 55 if shares == "skewed" else np.full(10, 0.1)
    image = np.full([1, 28, 28], 200, np.uint8)
    image[0, 0] = 0
    for _ in range(50):
        sets = (
            Digits(np.broadcast_to(image, [n, 28, 28]), random.choice(10, n, p=p))
            for n in (2000, 300)
        )
        found = [line for line in remarks(*sets, held_out) if "lass" in line]
        assert found == []


def test_held_out_images_that_are_trained_on_are_counted(many):
    """A few are in known sets; a copied file is not."""
    train_set, test_set = many
    images = test_set.images.copy()
    for copied, expected in ((6, []), (7, ["7 of 600 test images are training im"])):
        images[:copied] = train_set.images[:copied]
        found = remarks(train_set, test_set._replace(images=images), 300)
        assert [line[:28] for line in found] == [text[:28] for text in expected]
    assert remarks(train_set, many[0], 300) == [
        "3,000 of 3,300 test images are training images too."
    ]
