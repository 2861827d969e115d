"""What a trained model draws: the figures of a run, and digits to take away."""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf

from core import rng
from core.data import batches
from core.data.digits import CLASSES, SIDE
from core.run import files
from core.run.process import say
from core.show import figures

PICTURED = 400  # at most so many of the generated digits
AT_ONCE = 1000  # draws from the prior: bounds the memory


def pixel_means(logits) -> np.ndarray:
    """E[x|z] of logits [N, 784], as images [N, 28, 28] in [0, 1]."""
    return tf.sigmoid(logits).numpy().reshape(-1, SIDE, SIDE)


def one_hot(model, labels):
    """Labels [N] as a model wants them: y [N, 10], or None."""
    return batches.one_hot(labels) if model.conditional else None


def decode(model, weights, z, labels) -> np.ndarray:
    """Pixel means [N, 28, 28] of z [N, D]; `labels` [N] count if it is conditional."""
    z = tf.constant(z, tf.float32)
    return pixel_means(model.decode(weights, z, one_hot(model, labels)))


def prior_samples(model, weights, key, labels, rows) -> np.ndarray:
    """Pixel means [N, 28, 28] of draws from the prior, with labels [N] if the model is
    conditional. `rows` [N] number the draws: those of equal numbers share z."""
    table = rng.normal_rows(key, min(rows), (np.ptp(rows) + 1, model.noise_size))
    noise = tf.gather(table, rows - min(rows))
    parts = []
    for i in range(0, len(labels), AT_ONCE):
        y = one_hot(model, labels[i : i + AT_ONCE])
        logits = model.sample(weights, noise[i : i + AT_ONCE], y)
        parts.append(pixel_means(logits))
    return np.concatenate(parts)


def draw_samples(model, weights, seed: int, folder: Path) -> None:
    """Ten by ten draws from the prior; one z a row and one class a column, if the model
    is conditional."""
    rows, columns = np.divmod(np.arange(100), 10)
    key = rng.key(seed, rng.Stream.SAMPLE, 0)
    styles = rows if model.conditional else np.arange(100)
    samples = prior_samples(model, weights, key, columns, styles)
    title = "Pixel means of samples from the prior"
    title += ": one z a row, one class a column" if model.conditional else ""
    figures.image_rows(
        folder / "samples.png", title, samples.reshape(10, 10, SIDE, SIDE)
    )


def draw_manifold(model, weights, folder: Path) -> None:
    """What a grid over two latent dimensions decodes to, for each class of a
    conditional model. Nothing, if there are not two."""
    if model.latent_dims != (2,):
        return
    grid = figures.manifold_grid()
    for label in range(CLASSES) if model.conditional else [0]:
        name = f"manifold_{label}.png" if model.conditional else "manifold.png"
        digits = decode(model, weights, grid, np.full(len(grid), label))
        figures.manifold(folder / name, digits)


def draw_images(model, weights, evaluated, folder: Path) -> None:
    """Latent space, reconstructions and interpolations of the images that were
    evaluated, a `record.Evaluated`."""
    split, kind, z_mean = evaluated.split, evaluated.record["split"], evaluated.z_mean
    labels = split.labels.numpy()

    def images(rows):
        pixels = tf.gather(split.pixels, rows)
        return batches.to_batch(pixels)[0].numpy().reshape(-1, SIDE, SIDE)

    def decoded(z, labels):
        return decode(model, weights, z, labels)

    figures.latent_space(folder / "latent_space.png", z_mean, labels, kind)
    figures.reconstructions(folder, kind, images, labels, z_mean, decoded)
    figures.interpolations(folder, kind, images, labels, z_mean, decoded)


def generate(model, weights, data, folder, run_settings, settings) -> None:
    """Digits from the prior, as `settings.Show` asks, as a picture and as an array."""
    del data  # a trained model needs none
    count, digit, seed = settings.num_images, settings.digit, run_settings.seed
    labels = np.full(count, digit) if digit >= 0 else np.arange(count) % CLASSES
    key = rng.key(seed, rng.Stream.SAMPLE, 1)
    digits = prior_samples(model, weights, key, labels, np.arange(count))
    kind = f"_digit{digit}" if digit >= 0 else ""
    name = f"generated_{count}{kind}_seed{seed}_step{folder.step}"
    path = folder.path / "figures" / name
    path.parent.mkdir(exist_ok=True)
    with files.whole(path.with_suffix(".npy")) as file:
        np.save(file, digits)
    shown = digits[:PICTURED]
    given = f", given {digit}" if digit >= 0 else ""
    columns = CLASSES if model.conditional else math.ceil(math.sqrt(len(shown)))
    figures.image_rows(
        path.with_suffix(".png"),
        f"Pixel means of {len(shown)} samples from the prior{given}",
        [shown[i : i + columns] for i in range(0, len(shown), columns)],
    )
    some = f" of the first {PICTURED}" if count > PICTURED else ""
    say(f"{count} digits: float32 [{count}, 28, 28] in {path}.npy")
    say(f"Picture{some}: {path}.png")
