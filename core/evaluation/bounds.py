"""-ELBO, its parts and the posterior means of images that were not trained on.

All noise is a function of (seed, split, chunk of images): the first N images of a set
get the same numbers whether more are evaluated or not. For a user's own images it is a
function of the seed alone.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from core import numerics, rng
from core.data import batches, datasets
from core.model import terms

ESTIMATE_SAMPLES = 10  # of z an image, where its KL is estimated, or it is one's own
ACTIVE_VARIANCE = 0.01


class Evaluation(NamedTuple):
    """Means over images, in nats an image, and the posterior means themselves."""

    negative_elbo: float
    distortion: float
    rate: float
    active_units: tuple[int, ...]  # of each layer of latents
    kl_per_dim: tuple[np.ndarray, ...]  # [G] of each layer: D, or 1 if p(z) is learned
    z_mean: np.ndarray  # [N, D], of the layer next to the image
    images: dict[str, np.ndarray]  # distortion and rate of each, [N]


def active_units(z_mean: np.ndarray, error: np.ndarray) -> int:
    """Latent dimensions whose posterior mean varies by more than 0.01 over images.

    Burda et al. (arXiv 1509.00519), section 5.2. Both are [N, D]: where `z_mean` is
    itself estimated from samples, `error` is the variance of each estimate, which does
    not count.
    """
    with np.errstate(invalid="ignore"):  # of ruined weights, which are refused later
        over_images = np.var(z_mean, axis=0, dtype=np.float64)
        return int(np.sum(over_images - np.mean(error, axis=0) > ACTIVE_VARIANCE))


def evaluate(model, weights, split, kind: str, seed: int) -> Evaluation:
    """What a model with these weights reaches on a `Split` of that kind.

    The noise is the same at every call for the same kind, so that two epochs differ by
    their weights alone; for a user's own images, of which none is to depend on its
    place among others, it is the same for each.
    """
    own = kind == "own"
    num_samples = 1 if model.exact_kl and not own else ESTIMATE_SAMPLES
    at_once = numerics.CHUNK // num_samples
    shape = num_samples, 1 if own else at_once, sum(model.latent_dims)
    key = rng.key(seed, rng.Stream.EVALUATE, 2 * datasets.INDEX[kind] + 1)
    chunks = []
    for number, start in enumerate(range(0, len(split.pixels), at_once)):
        part = chunk_of(model, split, start, at_once)
        noise = chunk_noise(key, tf.constant(0 if own else number), shape)
        chunks.append(evaluate_chunk(model, weights, *part, noise))
    log_likelihood, *layers = map(np.concatenate, zip(*chunks, strict=True))
    depth = len(model.latent_dims)
    kls, z_means, errors = (layers[i * depth : (i + 1) * depth] for i in range(3))
    kl_per_dim = tuple(np.mean(kl, axis=0, dtype=np.float64) for kl in kls)
    distortion = -float(np.mean(log_likelihood, dtype=np.float64))
    rate = float(sum(map(np.sum, kl_per_dim)))
    rates = sum(np.sum(kl, axis=1) for kl in kls)
    return Evaluation(
        negative_elbo=distortion + rate,
        distortion=distortion,
        rate=rate,
        active_units=tuple(map(active_units, z_means, errors)),
        kl_per_dim=kl_per_dim,
        z_mean=z_means[0],
        images={"distortion": -log_likelihood, "rate": rates},
    )


def chunk_of(model, split, start: int, count: int):
    """(pixels, labels) of `count` images from `start` on; labels are None for a model
    without labels."""
    labels = split.labels[start : start + count] if model.conditional else None
    return split.pixels[start : start + count], labels


@tf.function(autograph=False)
def chunk_noise(key, number, shape):
    """N(0, 1) noise of `shape` for chunk `number` of a split."""
    return rng.normal(rng.fold(key, number), shape)


@tf.function(reduce_retracing=True, autograph=False)
def evaluate_chunk(model, weights, pixels, labels, noise):
    """log p(x|z) [B], then KL [B, G], mean and its error [B, D] of every layer."""
    x, y = batches.to_batch(pixels, labels)
    noise = noise[:, : tf.shape(pixels)[0]]
    inference = model.infer(weights, x, noise, y)
    return (
        tf.reduce_mean(terms.log_likelihood(inference, x), axis=0),
        *(latent.kl for latent in inference.latents),
        *(latent.mean for latent in inference.latents),
        *(latent.mean_error for latent in inference.latents),
    )


def encode(model, weights, split) -> np.ndarray:
    """The posterior means of z [N, D], of the layer next to the image."""
    return posteriors(model, weights, split)[0]


def posteriors(model, weights, split) -> list[np.ndarray]:
    """Means and log variances of q(z|x) [N, D], of the layer next to the image."""
    parts = [
        encode_chunk(model, weights, *chunk_of(model, split, i, numerics.CHUNK))
        for i in range(0, len(split.pixels), numerics.CHUNK)
    ]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


@tf.function(reduce_retracing=True, autograph=False)
def encode_chunk(model, weights, pixels, labels):
    """Posterior means and log variances [B, D]."""
    return model.encode(weights, *batches.to_batch(pixels, labels))
