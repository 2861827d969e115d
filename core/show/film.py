"""The film of a run: how its picture changed, epoch by epoch, as figures/film.gif."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.progress import say
from core.run import files
from core.show import figures, gallery

LIMIT = 2 * 10**6  # bytes
STEP = 17  # between two of 16 greys, which take half the bytes of 256
EPOCHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)


def add_frame(model, weights, folder, epoch: int, run_settings) -> None:
    """Keep the picture after an epoch in the run's folder, if `settings.Run` asks for a
    film and the epoch is of it."""
    if run_settings.film and folder.frames and epoch in EPOCHS:
        frame = picture(model, weights, run_settings.seed)
        files.write_arrays(folder.frames / f"{epoch}.npz", {"frame": frame})


def picture(model, weights, seed: int) -> np.ndarray:
    """uint8 [height, width]: the manifold of two dimensions, else samples whose noise
    is the same at every epoch."""
    rows, gap = gallery.sample_rows(model, weights, seed), 2
    if model.latent_dims == (2,) and not model.conditional:
        z, *_ = gallery.manifold_points(model.prior, weights, seed)
        digits = gallery.decode(model, weights, z, None)
        rows, gap = np.split(digits, figures.MANIFOLD_SIDE), 0
    return np.rint(figures.tile(rows, gap)[..., 0] / STEP).astype(np.uint8) * STEP


def make(path: Path, model, weights, folder, seed: int) -> None:
    """Write the film of the epochs before the folder's, and of these weights."""
    frames = []
    for epoch in (each for each in EPOCHS if each < folder.epoch):
        kept = files.read_arrays(folder.frames / f"{epoch}.npz")
        if kept:
            frames.append(_titled(kept["frame"], epoch))
        else:
            say(
                f"The film is without epoch {epoch}, whose frame is missing or damaged."
            )
    frames.append(_titled(picture(model, weights, seed), folder.epoch))
    files.write_whole(path, animated(frames))


def _titled(picture: np.ndarray, epoch: int) -> Image.Image:
    image = Image.fromarray(np.pad(picture, ((28, 4), (4, 4)), constant_values=255))
    font = ImageFont.load_default(18)
    ImageDraw.Draw(image).text((8, 2), f"epoch {epoch}", fill=0, font=font)
    return image


def animated(frames: list) -> bytes:
    """Images as a GIF, the last for longer; smaller ones if it has too many bytes."""
    film, (first, *others) = io.BytesIO(), frames
    times = [700] * len(others) + [2500]  # milliseconds
    first.save(film, "GIF", save_all=True, append_images=others, duration=times, loop=0)
    if len(film.getvalue()) <= LIMIT:
        return film.getvalue()
    return animated([frame.reduce(2) for frame in frames])
