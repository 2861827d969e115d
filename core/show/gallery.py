"""What a trained model draws: the figures of a run, and digits to take away."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from core import progress, rng
from core.data import batches
from core.data.digits import CLASSES, SIDE
from core.errors import UserError
from core.progress import say
from core.run import files
from core.show import figures

PICTURED = 400  # at most so many of the generated digits
AT_ONCE = 1000  # of them in memory


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
    return pixel_means(model.sample(weights, noise, one_hot(model, labels)))


def sample_rows(model, weights, seed: int) -> np.ndarray:
    """Ten by ten draws from the prior [10, 10, 28, 28]; one z a row and one class a
    column, if the model is conditional."""
    rows, columns = np.divmod(np.arange(100), 10)
    key = rng.key(seed, rng.Stream.SAMPLE, 0)
    styles = rows if model.conditional else np.arange(100)
    samples = prior_samples(model, weights, key, columns, styles)
    return samples.reshape(10, 10, SIDE, SIDE)


def draw_samples(path: Path, model, weights, seed: int) -> None:
    """The picture of `sample_rows`."""
    title = "Pixel means of samples from the prior"
    title += ": one z a row, one class a column" if model.conditional else ""
    figures.image_rows(path, title, sample_rows(model, weights, seed))


def draws(prior, weights, seed: int) -> np.ndarray:
    """Many z [N, D] from a prior, which tell its shape."""
    key = rng.key(seed, rng.Stream.SAMPLE, 2)
    return prior.sample(weights, rng.normal(key, [10_000, prior.noise_size])).numpy()


def manifold_points(prior, weights, seed: int):
    """What the manifold shows of a prior in two dimensions: z [side^2, 2], and the axes
    of the picture as `figures.manifold` takes them.

    A prior that carries N(0, 1) to z shows where its quantiles come to; another, the
    central 99 % of draws from it.
    """
    if prior.noise_size == 2:
        x = y = figures.quantiles()
        noise = tf.constant(figures.grid(x, y), tf.float32)
        where = "at the prior's quantiles"
        return prior.sample(weights, noise), x, y, where, "z" if prior.exact_kl else "e"
    ends = np.quantile(draws(prior, weights, seed), [0.005, 0.995], axis=0)
    x, y = np.linspace(*ends, figures.MANIFOLD_SIDE).T
    return figures.grid(x, y), x, y, "within the central 99 % of the prior", "z"


def draw_pseudo_inputs(path: Path, model, weights) -> None:
    """Some of a VampPrior's pseudo-inputs, and what they decode to; those that are
    points of z_1 show that alone."""
    inputs, rows = model.prior.pseudo_inputs(weights)[:36], []
    images = len(model.latent_dims) == 1
    z = model.encode(weights, inputs)[0] if images else inputs
    decoded = pixel_means(model.decode(weights, z))
    for few in np.array_split(np.arange(len(decoded)), 3):
        if images:
            rows.append(tf.gather(inputs, few).numpy().reshape(-1, SIDE, SIDE))
        rows.append(decoded[few])
    names = ["pseudo-input", "decoded"] * 3 if images else ["decoded"] * 3
    title = f"{len(decoded)} of {model.prior.pseudo_inputs(weights).shape[0]} "
    figures.image_rows(path, f"{title}pseudo-inputs of the prior", rows, names)


def images_of(split, rows) -> np.ndarray:
    """Some images of a `Split`, [n, 28, 28] in [0, 1]."""
    x, _ = batches.to_batch(tf.gather(split.pixels, rows))
    return x.numpy().reshape(-1, SIDE, SIDE)


def drawings(model, weights, evaluated) -> dict:
    """{name of a picture: function that draws it to a path}, of the images in a
    `record.Evaluated`, of samples, and of a latent space of two dimensions."""
    record, split, z_mean, _ = evaluated
    kind, labels = evaluated.kind, split.labels.numpy()

    def decoded(z, labels):
        return decode(model, weights, z, labels)

    def log_prior(z):
        return model.prior.log_prob(weights, tf.constant(z[None], tf.float32))[0]

    def draw_latent_space(path):
        prior = None
        if flat:
            prior = log_prior, draws(model.prior, weights, record["seed"])
        figures.latent_space(path, z_mean, labels, kind, prior)

    def draw_manifold(path, label):
        z, *axes = manifold_points(model.prior, weights, record["seed"])
        figures.manifold(path, decoded(z, np.full(len(z), label)), *axes)

    flat, images = model.latent_dims == (2,), partial(images_of, split)
    shown = kind, images, labels, z_mean, decoded
    tasks = {
        "latent_space.png": draw_latent_space,
        "reconstructions.png": lambda p: figures.reconstructions(p, *shown),
        "interpolations.png": lambda p: figures.interpolations(p, *shown),
    }
    if flat:
        for label in range(CLASSES) if model.conditional else [0]:
            name = f"manifold_{label}.png" if model.conditional else "manifold.png"
            tasks[name] = partial(draw_manifold, label=label)
    if model.prior.pseudo_inputs:
        tasks["pseudo_inputs.png"] = lambda p: draw_pseudo_inputs(p, model, weights)
    tasks["samples.png"] = lambda p: draw_samples(p, model, weights, record["seed"])
    return tasks


def generate(model, weights, data, folder, run_settings, settings) -> None:
    """Digits from the prior, as `settings.Show` asks, as a picture and as an array."""
    del data  # a trained model needs none
    count, digit, seed = settings.num_images, settings.digit, run_settings.seed
    seen = folder.recorded["dataset"].get("classes", range(CLASSES))
    if model.conditional and len(seen) < CLASSES:
        names = ", ".join(map(str, seen))
        if digit < 0:
            say(f"Classes that it was trained on: {names}")
        elif digit not in seen:
            raise UserError(
                f"--digit={digit}: the run was trained on the classes {names} alone: "
                "choose one of them"
            )
    key, shown = rng.key(seed, rng.Stream.SAMPLE, 1), []
    classes, kind, given = range(CLASSES), "", ""
    if digit >= 0:
        classes, kind, given = [digit], f"_digit{digit}", f", given {digit}"
    name = f"generated_{count}{kind}_seed{seed}_step{folder.step}"
    path = folder.path / "figures" / name
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, SIDE, SIDE)}
    bar = progress.bar(count, "digit", "drawing", delay=1)
    with files.whole(path.with_suffix(".npy")) as file, bar:
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, count, AT_ONCE):  # for the memory
            numbers = np.arange(first, min(first + AT_ONCE, count))
            labels = np.take(classes, numbers % len(classes))
            digits = prior_samples(model, weights, key, labels, numbers)
            file.write(digits.astype("<f4").tobytes())
            bar.update(len(digits))
            shown = [*shown, *digits][:PICTURED]
    say(f"{count} digits: float32 [{count}, 28, 28] in {path}.npy")
    columns = CLASSES if model.conditional else math.ceil(math.sqrt(len(shown)))
    title = f"Pixel means of {len(shown)} samples from the prior{given}"
    rows = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    figures.image_rows(path.with_suffix(".png"), title, rows)
    some = f" of the first {PICTURED}" if count > PICTURED else ""
    say(f"Picture{some}: {path}.png")
