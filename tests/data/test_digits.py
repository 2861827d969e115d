import numpy as np
import pytest

from core.data.digits import Digits, checksum, expect_digits
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
NO_DIGITS = {
    "floats": (BLANK / 255, LABELS, r"float64 \[3, 28, 28\]; of floats .* np.rint"),
    "int64": (BLANK.astype(np.int64), LABELS, "images as uint8.*got int64"),
    "flat": (BLANK.reshape(3, 784), LABELS, r"got uint8 \[3, 784\]"),
    "27 rows": (BLANK[:, 1:], LABELS, r"got uint8 \[3, 27, 28\]"),
    "channels": (BLANK[..., None], LABELS, r"got uint8 \[3, 28, 28, 1\]"),
    "one image": (BLANK[0], LABELS, r"got uint8 \[28, 28\]"),
    "too few labels": (BLANK, LABELS[1:], r"each of 3 images.* uint8 \[2\]"),
    "no labels": (BLANK, None, "got object"),
    "one-hot labels": (BLANK, np.eye(10)[LABELS].astype(int), r"\[3, 10\]"),
    "labels as floats": (BLANK, LABELS / 1, "whole number.* got float64"),
}


@pytest.mark.parametrize("case", NO_DIGITS)
def test_what_is_no_digits_is_refused_and_named(case):
    images, labels, message = NO_DIGITS[case]
    with pytest.raises(UserError, match=f"the test set: expected.*{message}"):
        expect_digits(Digits(images, labels), "the test set")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_digits_are_taken_as_they_are(digits, dtype):
    for images, labels in digits:
        expect_digits(Digits(images, labels.astype(dtype)), "a set")
    expect_digits(Digits(BLANK[:0], LABELS[:0]), "none, as a split may be")
