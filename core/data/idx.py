"""IDX files -> `Digits`, parsed strictly.

A big-endian header (type and number of axes, then each axis' length), then the bytes.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from core.data.digits import Digits, expect_digits
from core.errors import UserError

SPLITS = ("train", "t10k")
MAGIC = 0x800  # of uint8, and the number of axes
HINTS = {  # by the first bytes of what is no such file
    b"\x1f\x8b": ", as gzip writes: unpack it, or add .gz to its name",
    b"\0\0\x08\x04": ": make color images grey",
}


def load(folder) -> tuple[Digits, Digits]:
    """The training and test sets in a folder's four IDX files, which may be plain or
    .gz, and named with a dot (`train-images.idx3-ubyte`).

    UserError if one is missing, damaged, mislabeled, or does not fit the others.
    """
    return tuple(_load_split(Path(folder), name) for name in SPLITS)


def _load_split(folder: Path, name: str) -> Digits:
    images = _read(folder, f"{name}-images", 3)
    labels = _read(folder, f"{name}-labels", 1)
    expect_digits(Digits(images, labels), f"{folder}: {name}")
    if not len(images):
        raise UserError(f"{folder}: expected {name} images, got 0 of them")
    return Digits(images, labels)


def _read(folder: Path, stem: str, axes: int) -> np.ndarray:
    """The array of a file, however it is named; several of a kind must be equal."""
    names = [f"{stem}{dot}idx{axes}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    wrong = f"{folder}: expected a folder with four IDX files in --data_dir, but "
    try:
        listed = os.listdir(folder)
        found = [n for n in names if n in listed]
        there = [n for n in found if not os.path.isdir(folder / n)]
    except OSError as error:
        raise UserError(f"{wrong}it cannot be read ({error.strerror})") from error
    if not there:
        lacking = (
            f"{found[0]} is a folder" if found else f"there is no {names[0]} (or .gz)"
        )
        raise UserError(f"{wrong}{lacking}")
    first, *others = (_read_idx(folder / name, axes) for name in there)
    if not all(np.array_equal(first, other) for other in others):
        raise UserError(
            f"{folder}: expected one data set, but {' and '.join(there)} differ: "
            "remove what is not meant"
        )
    return first


def _read_idx(path: Path, axes: int) -> np.ndarray:
    """A uint8 array; no more is read than the header promises, whatever a .gz holds,
    and nothing if that is more than the file can hold."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            header = file.read(4 + 4 * axes)
            if len(header) < 4 + 4 * axes:
                raise UserError(f"{path}: truncated inside its header")
            magic, *shape = struct.unpack(f">{1 + axes}I", header)
            if magic != MAGIC + axes:
                hints = (HINTS[start] for start in HINTS if header.startswith(start))
                raise UserError(
                    f"{path}: expected an IDX file that starts with {MAGIC + axes:08x} "
                    f"(bytes, {axes} axes), got {magic:08x}{''.join(hints)}"
                )
            size = math.prod(shape)
            possible = size <= 100 * (path.stat().st_size + 2**20)
            body = file.read(size + 1) if possible else b""
    except (OSError, EOFError, zlib.error) as error:
        unpacked = ": take .gz off, if it was unpacked"
        hint = unpacked * str(error).startswith("Not a gzipped file")
        raise UserError(f"{path}: cannot be read ({error}){hint}") from error
    if len(body) != size:
        raise UserError(
            f"{path}: expected {size} bytes after the header, got "
            f"{'more' if len(body) > size else 'fewer'}; it is damaged"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)
