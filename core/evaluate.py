"""What a trained model reaches on images it was not trained on.

All noise is a function of (seed, split, chunk of images, block of samples): the first N
images of a set get the same numbers whether more are evaluated or not.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from core import networks, objective, rng

CHUNK = 1000  # samples of z at a time: bounds the memory
TILE, BLOCK = 20, 100  # images and samples that the likelihood's compiled loop sees
BLOCKS = 10  # of samples in one call, for speed alone
TILES = 2  # at a time, each on a core
UNFUSED = 20  # samples at once without XLA, where every layer stays in memory
UPPER_SAMPLES = 10  # of z an image, of two layers, whose KL is estimated; else 1
ACTIVE_VARIANCE = 0.01


class Evaluation(NamedTuple):
    """Means over images, in nats an image, and the posterior means themselves."""

    negative_elbo: float
    distortion: float
    rate: float
    active_units: tuple[int, ...]  # of each layer of latents
    kl_per_dim: tuple[np.ndarray, ...]  # [D] of each layer
    z_mean: np.ndarray  # [N, D], of the layer next to the image


def active_units(z_mean: np.ndarray, error: np.ndarray) -> int:
    """Latent dimensions whose posterior mean varies by more than 0.01 over images.

    Burda et al. (arXiv 1509.00519), section 5.2. Both are [N, D]: where `z_mean` is
    itself estimated from samples, `error` is the variance of each estimate, which does
    not count.
    """
    over_images = np.var(z_mean, axis=0, dtype=np.float64)
    return int(np.sum(over_images - np.mean(error, axis=0) > ACTIVE_VARIANCE))


def make_evaluate(infer, params, to_batch, seed: int, latent_dims):
    """evaluate(pixels uint8 [N, 784], labels [N], index) -> `Evaluation`.

    The noise is the same at every call with the same `index` (it numbers the split), so
    that two epochs differ by their weights alone.
    """
    depth = len(latent_dims)
    num_samples = 1 if depth == 1 else UPPER_SAMPLES
    at_once = CHUNK // num_samples
    shape = [num_samples, at_once, sum(latent_dims)]

    @tf.function(reduce_retracing=True, autograph=False)
    def evaluate_chunk(pixels, labels, key, number):
        x, y = to_batch(pixels, labels)
        noise = rng.normal(rng.fold(key, number), shape)[:, : tf.shape(pixels)[0]]
        inference = infer(params, x, noise, y=y)
        means, errors = zip(*map(_posterior_mean, inference.latents), strict=True)
        return (
            tf.reduce_mean(objective.log_likelihood(inference, x), axis=0),
            *objective.kl_per_dim(inference),
            *means,
            *errors,
        )

    def evaluate(pixels, labels, index: int) -> Evaluation:
        key = rng.key(seed, rng.Stream.EVALUATE, 2 * index + 1)
        chunks = []
        for i in range(0, len(pixels), at_once):
            part = pixels[i : i + at_once], labels[i : i + at_once]
            chunks.append(evaluate_chunk(*part, key, tf.constant(i // at_once)))
        log_likelihood, *layers = map(np.concatenate, zip(*chunks, strict=True))
        kls, z_means, errors = (layers[i * depth : (i + 1) * depth] for i in range(3))
        kl_per_dim = tuple(np.mean(kl, axis=0, dtype=np.float64) for kl in kls)
        distortion = -float(np.mean(log_likelihood, dtype=np.float64))
        rate = float(sum(map(np.sum, kl_per_dim)))
        return Evaluation(
            negative_elbo=distortion + rate,
            distortion=distortion,
            rate=rate,
            active_units=tuple(map(active_units, z_means, errors)),
            kl_per_dim=kl_per_dim,
            z_mean=z_means[0],
        )

    return evaluate


def _posterior_mean(latent):
    """The mean of q(z|x), and the variance of its estimate, [B, D] each.

    Where it depends on samples of the layer below, it is the mean over them.
    """
    mean = latent.posterior_mean
    if mean.shape.rank == 2:
        return mean, tf.zeros_like(mean)
    mean_over_samples, variance = tf.nn.moments(mean, axes=[0])
    return mean_over_samples, variance / (mean.shape[0] - 1)


def make_encode(infer, params, to_batch, latent_dims):
    """encode(pixels uint8 [N, 784], labels [N]) -> posterior means of z [N, D]."""

    @tf.function(reduce_retracing=True, autograph=False)
    def encode_chunk(pixels, labels):
        x, y = to_batch(pixels, labels)
        noise = tf.zeros([1, tf.shape(x)[0], sum(latent_dims)])
        return infer(params, x, noise, y=y).latents[0].posterior_mean

    def encode(pixels, labels) -> np.ndarray:
        starts = range(0, len(pixels), CHUNK)
        return np.concatenate(
            [encode_chunk(pixels[i : i + CHUNK], labels[i : i + CHUNK]) for i in starts]
        )

    return encode


def make_log_marginal(
    infer, params, to_batch, seed: int, latent_dims, jit: bool, bfloat16=False
):
    """log_marginal(pixels, labels, index, num_samples, progress) -> log p(x) [N].

    Importance sampling with q(z|x) as proposal: the log-mean-exp of the log importance
    weights, in nats, whose expectation is at most log p(x) and tends to it as
    `num_samples` grows (Burda et al., arXiv 1509.00519, equation (8)). `progress(n)` is
    told of each n images that are done. Memory does not depend on the number of
    samples. The images of a tile share their noise: each estimate is as good as with
    noise of its own, at a twentieth of the cost of drawing. Only the mean over images
    gains a little variance, which vanishes as `num_samples` grows.

    `jit` compiles it with XLA. With `bfloat16`, whose products are slow there, the
    networks run outside of it, and only what follows them is compiled.
    """
    params = networks.in_bfloat16(params) if bfloat16 else params
    draw_shape = [BLOCK, 1, sum(latent_dims)]
    at_once = BLOCK if jit else UNFUSED

    @tf.function(autograph=False)
    def draw(key, blocks):
        return tf.map_fn(
            lambda block: rng.normal(rng.fold(key, block), draw_shape),
            blocks,
            fn_output_signature=tf.float32,
        )

    weigh = tf.function(
        objective.log_importance_weights, jit_compile=jit, autograph=False
    )

    @tf.autograph.experimental.do_not_convert
    def log_weights(x, y, noise):
        return weigh(infer(params, x, noise, y=y), x)

    @tf.function(jit_compile=jit and not bfloat16)
    def add_blocks(log_sum, pixels, labels, noise, missing):
        """Add the weights of all samples but the last `missing` to exp(log_sum) [B]."""
        x, y = to_batch(pixels, labels)
        wanted = len(noise) * BLOCK - missing
        noise = tf.reshape(noise, [-1, at_once, *draw_shape[1:]])
        for i in tf.range(len(noise)):
            log_w = log_weights(x, y, tf.gather(noise, i))
            asked = (i * at_once + tf.range(at_once))[:, None] < wanted
            log_w = tf.where(asked, log_w, -math.inf)
            log_sum = tf.reduce_logsumexp(
                tf.concat([log_w, log_sum[None]], axis=0), axis=0
            )
        return log_sum

    def tile_log_sum(pixels, labels, key, num_samples: int):
        """log of the sum of the weights of [TILE] images."""
        log_sum, blocks = tf.fill([TILE], -math.inf), -(-num_samples // BLOCK)
        for first in range(0, blocks, BLOCKS):
            end = min(first + BLOCKS, blocks)
            noise = draw(key, tf.range(first, end))
            missing = max(0, end * BLOCK - num_samples)
            log_sum = add_blocks(log_sum, pixels, labels, noise, tf.constant(missing))
        return log_sum.numpy()

    def log_marginal(pixels, labels, index: int, num_samples: int, progress):
        key = rng.key(seed, rng.Stream.LIKELIHOOD, index)

        def tile_at(first):
            rows = tf.minimum(tf.range(first, first + TILE), len(pixels) - 1)
            tile = tf.gather(pixels, rows), tf.gather(labels, rows)
            return tile_log_sum(*tile, rng.fold(key, first // TILE), num_samples)

        found = []  # while one tile is busy on a single core, the other has the second
        with ThreadPoolExecutor(TILES) as pool:
            for log_sum in pool.map(tile_at, range(0, len(pixels), TILE)):
                progress(min(TILE, len(pixels) - TILE * len(found)))
                found.append(log_sum)
        log_sums = np.concatenate(found)[: len(pixels)].astype(np.float64)
        return log_sums - math.log(num_samples)

    return log_marginal
