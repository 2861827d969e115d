"""IDX files -> `Digits`, parsed strictly.

The format: a big-endian header (type and number of axes, then each axis' length),
followed by the bytes.
"""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from core.data.digits import SIDE, Digits
from core.errors import UserError

SPLITS = ("train", "t10k")
MAGIC = 0x800  # of uint8, and the number of axes


def load(folder) -> tuple[Digits, Digits]:
    """The training and test sets in a folder's four IDX files.

    Files may be plain or .gz, and named with a dot (`train-images.idx3-ubyte`).

    Raises:
      UserError: a file is missing, damaged, mislabeled, or does not fit the others.
    """
    return tuple(_load_split(Path(folder), name) for name in SPLITS)


def _load_split(folder: Path, name: str) -> Digits:
    images = _read(folder, f"{name}-images", 3)
    labels = _read(folder, f"{name}-labels", 1)
    if images.shape[1:] != (SIDE, SIDE):
        raise UserError(
            f"{folder}: expected {name} images of 28x28 pixels, "
            f"got {images.shape[1]}x{images.shape[2]}"
        )
    if not len(images) or len(images) != len(labels):
        raise UserError(
            f"{folder}: expected as many {name} images as labels, and at least one, "
            f"got {len(images)} images and {len(labels)} labels"
        )
    return Digits(images, labels)


def _read(folder: Path, stem: str, axes: int) -> np.ndarray:
    """The array of a file, however it is named; several of a kind must be equal."""
    names = [f"{stem}{dot}idx{axes}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    try:
        listed = set(os.listdir(folder))
    except OSError as error:
        raise UserError(
            f"{folder}: expected a folder with four IDX files in --data_dir, but it "
            f"cannot be read ({error.strerror})"
        ) from error
    there = [
        name for name in names if name in listed and not os.path.isdir(folder / name)
    ]
    if not there:
        raise UserError(
            f"{folder}: expected a file {names[0]} (or .gz), got none; --data_dir "
            "names a folder with the four IDX files"
        )
    first, *others = (_read_idx(folder / name, axes) for name in there)
    if not all(np.array_equal(first, other) for other in others):
        raise UserError(
            f"{folder}: expected one data set, but {' and '.join(there)} differ: "
            "remove what is not meant"
        )
    return first


def _read_idx(path: Path, axes: int) -> np.ndarray:
    """A uint8 array; no more is read than the header promises, whatever a .gz holds."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            header = np.frombuffer(file.read(4 + 4 * axes), np.uint8)
            if len(header) < 4 + 4 * axes:
                raise UserError(f"{path}: truncated inside its header")
            magic, *shape = (int(n) for n in header.view(">u4"))
            if magic != MAGIC + axes:
                raise UserError(f"{path}: {_other_magic(magic, axes)}")
            size = math.prod(shape)
            if size > 100 * (path.stat().st_size + 2**20):
                raise UserError(
                    f"{path}: its header promises {shape} bytes, more than the "
                    "file can hold; it is damaged"
                )
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if len(body) != size:
        raise UserError(
            f"{path}: expected {size} bytes after the header, got "
            f"{'more' if len(body) > size else len(body)}; it is damaged"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _other_magic(found: int, axes: int) -> str:
    """What a file is that does not begin as an IDX file of so many axes does."""
    expected = f"expected an IDX file that starts with {MAGIC + axes:08x}"
    if found >> 16 == 0x1F8B:
        return f"{expected}, got one that gzip compressed: add .gz to its name"
    if found >> 8 == MAGIC >> 8:
        what = f"one of {found - MAGIC} axes ({found:08x})"
        color = "; make color images grey" if (axes, found) == (3, MAGIC + 4) else ""
        return f"{expected} (bytes, {axes} axes), got {what}{color}"
    return f"{expected}, got {found:08x}"
