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
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise UserError(
            f"{what}: expected a whole number for each of {len(images)} images as "
            f"labels, got {labels.dtype} {list(labels.shape)}"
        )


def checksum(*sets: Digits) -> str:
    """SHA-256 over images and labels, the identity of what a run was trained on."""
    digest = hashlib.sha256()
    for digits in sets:
        digest.update(np.ascontiguousarray(digits.images))
        digest.update(np.ascontiguousarray(digits.labels))
    return digest.hexdigest()
