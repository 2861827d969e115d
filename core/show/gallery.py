"""What a trained model draws: the figures of a run, and digits to take away."""

import hashlib
import math
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from core import progress, rng
from core.data import batches, datasets
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


def prior_samples(model, weights, key, labels, rows, scale=1.0) -> np.ndarray:
    """Pixel means [N, 28, 28] of draws from the prior, with labels [N] if the model is
    conditional. `rows` [N] number the draws: those of equal numbers share z. Their
    noise is multiplied by `scale`, of all or of each number."""
    table = rng.normal_rows(key, min(rows), (np.ptp(rows) + 1, model.noise_size))
    noise = scale * tf.gather(table, rows - min(rows))
    return pixel_means(model.sample(weights, noise, one_hot(model, labels)))


def sample_rows(model, weights, seed: int) -> np.ndarray:
    """Ten by ten draws from the prior [10, 10, 28, 28]; one z a row and one class a
    column, if the model is conditional."""
    rows, columns = np.divmod(np.arange(100), 10)
    key = rng.key(seed, rng.Stream.SAMPLE, 0)
    styles = rows if model.conditional else np.arange(100)
    samples = prior_samples(model, weights, key, columns, styles)
    return samples.reshape(10, 10, SIDE, SIDE)


def draw_samples(path: Path, model, weights, seed: int):
    """The picture of `sample_rows`."""
    title = "Pixel means of samples from the prior"
    title += ": one z a row, one class a column" if model.conditional else ""
    return figures.image_rows(path, title, sample_rows(model, weights, seed))


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


def draw_pseudo_inputs(path: Path, model, weights):
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
    return figures.image_rows(path, f"{title}pseudo-inputs of the prior", rows, names)


def images_of(split, rows) -> np.ndarray:
    """Some images of a `Split`, [n, 28, 28] in [0, 1]."""
    x, _ = batches.to_batch(tf.gather(split.pixels, rows))
    return x.numpy().reshape(-1, SIDE, SIDE)


def drawings(model, weights, evaluated) -> dict:
    """{name of a picture: function that draws it to a path, or None, and returns the
    figure}, of the images in a `record.Evaluated`, of samples, and of a latent space of
    two dimensions."""
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
        return figures.latent_space(path, z_mean, labels, kind, prior)

    def draw_manifold(path, label):
        z, *axes = manifold_points(model.prior, weights, record["seed"])
        return figures.manifold(path, decoded(z, np.full(len(z), label)), *axes)

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
    """Digits as `settings.Show` asks, as a picture and as an array: from the prior, at
    a point, or between two images of `data`, which nothing else needs."""
    count, digit, seed = settings.num_images, settings.digit, run_settings.seed
    seen = expect_class(model, folder, digit)
    if settings.z or settings.interpolate:
        name, *chosen = points(model, weights, data, settings, seed)
        return _keep(folder, name, decode(model, weights, *chosen))
    key, shown = rng.key(seed, rng.Stream.SAMPLE, 1), []
    scale = noise_scale(model, settings.temperature)
    classes, kind, given = seen, "", ""
    if digit >= 0:
        classes, kind, given = [digit], f"_digit{digit}", f", given {digit}"
    if settings.temperature != 1:
        kind += f"_temperature{settings.temperature:g}"
    name = f"generated_{count}{kind}_seed{seed}_step{folder.step}"
    path = folder.path / "figures" / name
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, SIDE, SIDE)}
    bar = progress.bar(count, "digit", "drawing", delay=1)
    with files.whole(Path(f"{path}.npy")) as file, bar:
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, count, AT_ONCE):  # for the memory
            numbers = np.arange(first, min(first + AT_ONCE, count))
            labels = np.take(classes, numbers % len(classes))
            digits = prior_samples(model, weights, key, labels, numbers, scale)
            file.write(digits.astype("<f4").tobytes())
            bar.update(len(digits))
            shown = [*shown, *digits][:PICTURED]
    columns = len(seen) if model.conditional else math.ceil(math.sqrt(len(shown)))
    title = f"Pixel means of {len(shown)} samples from the prior{given}"
    rows = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    _picture(path, count, title, rows)


def _keep(folder, name: str, digits) -> None:
    path = folder.path / "figures" / f"generated_{name}_step{folder.step}"
    with files.whole(Path(f"{path}.npy")) as file:
        np.save(file, digits)
    _picture(path, len(digits), f"Pixel means, {name[:60]}", [digits])


def _picture(path: Path, count: int, title: str, rows) -> None:
    say(f"{count} digits: float32 [{count}, 28, 28] in {path}.npy")
    figures.image_rows(Path(f"{path}.png"), title, rows)
    some = f" of the first {PICTURED}" if count > PICTURED else ""
    say(f"Picture{some}: {path}.png")


def expect_class(model, folder, digit: int) -> list[int]:
    """The classes that the run was trained on. Raise UserError if a conditional model
    was not trained on class `digit`; for -1, say on which it was, if not on all."""
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
    return seen if model.conditional else range(CLASSES)


def noise_scale(model, temperature: float) -> np.ndarray:
    """What multiplies a draw's noise [noise_size], so that standard deviations are
    `temperature` times as large; the number that chooses a component stays."""
    *lower, upper = model.latent_dims
    scale, first = np.full(model.noise_size, temperature, np.float32), sum(lower)
    scale[first : first + model.prior.noise_size - upper] = 1
    return scale


def points(model, weights, data, settings, seed: int):
    """A name, z [n, D] and labels [n]: a point --z, of each class if the model is
    conditional and --digit names none; or, with the label of the first, the line
    between the posterior means of two test images that --interpolate numbers."""
    if settings.z:
        z, digit = np.array([settings.z.split(",")], float), settings.digit
        if z.shape[1] != model.latent_dims[0]:
            expected = f"expected {model.latent_dims[0]} numbers, got {z.shape[1]}"
            raise UserError(f"--z={settings.z}: {expected}")
        labels = range(CLASSES if model.conditional else 1) if digit < 0 else [digit]
        name, digest = settings.z, hashlib.sha256(settings.z.encode()).hexdigest()
        name = f"z{name}" if len(name) <= 100 else f"z{name[:91]}_{digest[:8]}"
        name += f"_digit{digit}" * (digit >= 0)
        return name, z.repeat(len(labels), axis=0), [*labels]
    ends = [int(number) for number in settings.interpolate.split(",")]
    pixels, labels = datasets.fix(data, "test", seed)
    if max(ends) >= len(labels):
        expected = f"expected two test images from 0 to {len(labels) - 1}"
        raise UserError(f"--interpolate={settings.interpolate}: {expected}")
    pixels, labels = tf.gather(pixels, ends), tf.gather(labels, ends)
    x, y = batches.to_batch(pixels, labels if model.conditional else None)
    z = np.linspace(*model.encode(weights, x, y)[0].numpy(), 10)
    return f"images{ends[0]}-{ends[1]}_seed{seed}", z, tf.repeat(labels[:1], 10)
