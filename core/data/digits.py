"""Images and labels, and what is true of all of them."""

import hashlib
from typing import NamedTuple

import numpy as np

from core.errors import UserError

SIDE = 28
PIXELS = SIDE**2
CLASSES = 10


class Digits(NamedTuple):
    """Grey images as they are published, 0 for paper and 255 for ink."""

    images: np.ndarray  # uint8 [N, 28, 28]
    labels: np.ndarray  # uint8 [N]


def expect_digits(digits: Digits, what: str) -> None:
    """Raise UserError if `what`, such as "the training set", is not uint8 images of
    28x28 pixels and as many labels."""
    images, labels = map(np.asarray, digits)
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
        raise UserError(
            f"{what}: expected images as uint8 [N, 28, 28] from 0 to 255, got "
            f"{images.dtype} {list(images.shape)}; of floats in [0, 1] make "
            "np.rint(255 * images).astype(np.uint8)"
        )
    if images.size and images.max() == 1:
        raise UserError(
            f"{what}: expected pixels from 0 for paper to 255 for ink, got 0 and 1 "
            "alone: multiply them by 255"
        )
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise UserError(
            f"{what}: expected a whole number for each of {len(images)} images as "
            f"labels, got {labels.dtype} {list(labels.shape)}"
        )


def remarks(train: Digits, test: Digits, held_out: int) -> list[str]:
    """What is strange about a data set, each in a line with its figure. The last
    `held_out` training images are those for validation."""
    found = []
    for what, images in (("training", train.images), ("test", test.images)):
        largest, ink = int(images.max()), float(np.mean(images, dtype=float)) / 255
        if images.min() == largest:
            found.append(f"All pixels of the {what} images are {largest}.")
        elif largest < 128:
            found.append(f"The largest pixel of the {what} images is {largest} of 255.")
        elif ink > 0.6:
            found.append(
                f"Ink covers {ink:.0%} of the {what} images, where MNIST has 13%: dark "
                "and light may be swapped."
            )
    edge = len(train.labels) - held_out
    trained_on, validated = train.labels[:edge], train.labels[edge:]
    for what, labels in (("validation", validated), ("test", test.labels)):
        unseen = sorted({*labels.tolist()} - {*trained_on.tolist()})
        if unseen:
            names = ", ".join(map(str, unseen[:10])) + ", ..." * (len(unseen) > 10)
            found.append(f"No training image is of a class that {what} has: {names}.")
        elif len(labels):
            found += _shares(what, trained_on, labels)
    return found


def _shares(what: str, trained_on, labels) -> list[str]:
    """A line about the class whose share differs most, if no shuffled set has that."""
    classes = np.arange(int(trained_on.max()) + 1)
    here, there = ((y[:, None] == classes).mean(axis=0) for y in (labels, trained_on))
    error = np.sqrt(there * (1 - there) / len(labels)) + 1 / len(labels)
    worst = int(np.argmax(np.abs(here - there) / error))
    if abs(here - there)[worst] < max(8 * error[worst], 0.05):
        return []
    return [
        f"Class {worst} is {here[worst]:.0%} of the {what} images and "
        f"{there[worst]:.0%} of the training images: is the set sorted by class?"
    ]


def checksum(*sets: Digits) -> str:
    """SHA-256 over images and labels, the identity of what a run was trained on."""
    digest = hashlib.sha256()
    for digits in sets:
        digest.update(np.ascontiguousarray(digits.images))
        digest.update(np.ascontiguousarray(digits.labels))
    return digest.hexdigest()
