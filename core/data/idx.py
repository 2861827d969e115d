"""IDX files -> `Digits`, parsed strictly.

The format: a big-endian header (type and number of axes, then each axis' length),
followed by the bytes.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from core.data.digits import SIDE, Digits
from core.errors import UserError

SPLITS = ("train", "t10k")
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801  # uint8 with three axes, with one


def load(folder) -> tuple[Digits, Digits]:
    """The training and test sets in a folder's four IDX files.

    Files may be plain or .gz, and named with a dot (`train-images.idx3-ubyte`).

    Raises:
      UserError: a file is missing, damaged, mislabeled, or does not fit the others.
    """
    return tuple(_load_split(Path(folder), name) for name in SPLITS)


def _load_split(folder: Path, name: str) -> Digits:
    images_path = _find(folder, f"{name}-images", "idx3-ubyte")
    labels_path = _find(folder, f"{name}-labels", "idx1-ubyte")
    images = _read_idx(images_path, IMAGES_MAGIC)
    labels = _read_idx(labels_path, LABELS_MAGIC)
    if images.shape[1:] != (SIDE, SIDE):
        raise UserError(
            f"{images_path}: expected images of 28x28 pixels, "
            f"got {images.shape[1]}x{images.shape[2]}"
        )
    if not len(images) or len(images) != len(labels):
        raise UserError(
            f"{folder}: expected as many {name} images as labels, and at least one, "
            f"got {len(images)} images and {len(labels)} labels"
        )
    return Digits(images, labels)


def _find(folder: Path, stem: str, ending: str) -> Path:
    names = [f"{stem}{dot}{ending}{gz}" for dot in "-." for gz in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder}: expected a file {names[0]} (or .gz), got "
        f"{'none' if folder.is_dir() else 'no such folder'}; "
        "--data_dir names a folder with the four IDX files"
    )


def _read_idx(path: Path, magic: int) -> np.ndarray:
    """A uint8 array; no more is read than the header promises, whatever a .gz holds."""
    opener = gzip.open if path.suffix == ".gz" else open
    axes = magic & 0xFF
    try:
        with opener(path, "rb") as file:
            header = np.frombuffer(file.read(4 + 4 * axes), np.uint8)
            if len(header) < 4 + 4 * axes:
                raise UserError(f"{path}: truncated inside its header")
            found, *shape = (int(n) for n in header.view(">u4"))
            if found != magic:
                raise UserError(
                    f"{path}: expected an IDX file that starts with {magic:08x}, "
                    f"got {found:08x}"
                )
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
