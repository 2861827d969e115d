"""Images and labels, and what is true of all of them."""

import hashlib
import itertools
from typing import NamedTuple

import numpy as np

from core.errors import UserError

SIDE = 28
PIXELS = SIDE**2
CLASSES = 10
SWAPPED = 0.6  # the share of ink above which dark and light look swapped
FAINT = 128  # the largest pixel below which ink is hardly any
REPEATED = 0.01  # the share of held-out images that may be trained on, as in a few sets


class Digits(NamedTuple):
    """Grey images as they are published, 0 for paper and 255 for ink."""

    images: np.ndarray  # uint8 [N, 28, 28]
    labels: np.ndarray  # uint8 [N]


def expect_digits(digits: Digits, what: str) -> None:
    """Raise UserError, which names them by `what`, if these are not uint8 images of
    28x28 pixels from 0 to 255 and as many labels."""
    images, labels = map(np.asarray, digits)
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
        floats = "; of floats in [0, 1] make np.rint(255 * images).astype(np.uint8)"
        raise UserError(
            f"{what}: expected images as uint8 [N, 28, 28] from 0 to 255, got "
            f"{images.dtype} {list(images.shape)}{floats * (images.dtype.kind == 'f')}"
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
        largest, ink = images.max(), np.mean(images, dtype=float) / 255
        if largest < FAINT:
            found.append(f"The largest pixel of the {what} images is {largest} of 255.")
        elif ink > SWAPPED:
            found.append(
                f"Ink covers {ink:.0%} of the {what} images, where MNIST has 13%: dark "
                "and light may be swapped."
            )
    edge = len(train.labels) - held_out
    trained_on, validated = (
        Digits(train.images[part], train.labels[part])
        for part in (slice(edge), slice(edge, None))
    )
    known = {hash(image.tobytes()) for image in trained_on.images}
    for what, (images, labels) in (("validation", validated), ("test", test)):
        if len(labels):
            found += of_classes(what, labels, trained_on.labels)
        again, all = (
            sum(hash(image.tobytes()) in known for image in images),
            len(images),
        )
        if again > REPEATED * all:
            found.append(f"{again:,} of {all:,} {what} images are training images too.")
    return found


def of_classes(what: str, labels, trained_on) -> list[str]:
    """A line about classes that are not trained on, or about the one whose share
    differs most, if no shuffled set has that."""
    unseen = [str(y) for y in np.setdiff1d(labels, trained_on)]
    if unseen:
        names = ", ".join(unseen[:10]) + ", ..." * (len(unseen) > 10)
        return [f"No training image is of a class that {what} has: {names}."]
    here, there = (np.bincount(y, minlength=256) / len(y) for y in (labels, trained_on))
    error = np.sqrt(there * (1 - there) / len(labels)) + 1 / len(labels)
    worst = np.argmax(np.abs(here - there) / error)
    if abs(here - there)[worst] < max(8 * error[worst], 0.05):
        return []
    return [
        f"Class {worst} is {here[worst]:.0%} of the {what} images and "
        f"{there[worst]:.0%} of the training images: is the set sorted by class?"
    ]


def checksum(*sets: Digits) -> str:
    """SHA-256 over images and labels, the identity of what a run was trained on."""
    digest = hashlib.sha256()
    for array in itertools.chain(*sets):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
