"""Images of a user's own: an array in a .npy file, or a folder of PNG files."""

import tokenize
from pathlib import Path

import numpy as np
from PIL import Image

from core.data.digits import SIDE
from core.errors import UserError

ARRAY = "expected [N, 28, 28] in FILE.npy, uint8 from 0 to 255 or floats from 0 to 1"
TO_ARRAY = "; np.save(FILE, ({}).reshape(-1, 28, 28)) converts it"
TO_PNG = "Image.open(FILE).convert('L').resize((28, 28)).save(FILE) of PIL converts it"
OPAQUE = "lay it on black, so that nothing shows through"
BY_MODE = {"LA": OPAQUE, "PA": OPAQUE, "RGBA": OPAQUE}  # what that would spoil
BY_MODE["I;16"] = "divide its values by 257, so that they fit into 8 bits"
DAMAGED = (OSError, ValueError, TypeError, EOFError)  # what NumPy raises of a header
DAMAGED += (SyntaxError, tokenize.TokenError, OverflowError)


def load(path: str) -> tuple[np.ndarray, list[str]]:
    """Images, uint8 [N, 28, 28], and their names. UserError: they are none."""
    if not Path(path).is_dir():
        images = _of_array(path)
        return images, [f"{Path(path).name}[{i}]" for i in range(len(images))]
    found = sorted(Path(path).glob("[!.]*.[pP][nN][gG]"))  # .* are of the system
    if not found:
        raise UserError(f"--images={path}: expected PNG files in it, got none")
    images = np.stack([_of_png(path) for path in found])
    if images.max() == 1:
        raise UserError(f"--images={path}: expected ink of 255, got 0 and 1 alone")
    return images, [path.name for path in found]


def _of_array(path: str) -> np.ndarray:
    try:
        images = np.lib.format.open_memmap(path, mode="r")
        got, low, high = f"{images.dtype} {images.shape}", images.min(), images.max()
    except DAMAGED as error:
        raise UserError(f"--images={path}: {ARRAY}: {error}") from error
    grey = images.dtype == np.uint8 and high != 1  # 0 and 1 alone are no grey values
    floats = images.dtype.kind == "f" and low >= 0 and high <= 1
    if images.shape[1:] == (SIDE, SIDE) and (grey or floats):
        return np.array(images) if grey else np.rint(255 * images).astype(np.uint8)
    converts = ""
    kind, pixels = images.dtype.kind, len(images) * SIDE**2
    real = kind in "buf" or kind == "i" and low >= 0  # others may wrap around
    if real and images.size == pixels and -np.inf < low < high < np.inf:
        shifted = "(images - images.min()) / np.ptp(images)"
        converts = TO_ARRAY.format(shifted if low < 0 else "images / images.max()")
    raise UserError(
        f"--images={path}: {ARRAY}, got {got} from {low} to {high}{converts}"
    )


def _of_png(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.size == (SIDE, SIDE) and image.mode in ("1", "L", "RGB"):
                return np.array(image.convert("L"))
            got = f"{image.mode}, {image.width}x{image.height}"
            got += f"; {BY_MODE.get(image.mode, TO_PNG)}"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        got = error
    raise UserError(f"{path}: expected a grey PNG of 28x28 pixels, got {got}")
