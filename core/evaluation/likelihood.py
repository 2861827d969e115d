"""-log p(x) by importance sampling.

All noise is a function of (seed, split, group of images, group of samples): an image's
number does not depend on which others are evaluated, nor on how many at a time.
"""

import functools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from core import numerics, rng
from core.data import batches
from core.data.datasets import Split
from core.model import terms
from core.run import process

IMAGES, SAMPLES = 20, 100  # in a group; the images of one share their noise


def log_marginal(model, weights, split, key, settings, run_settings):
    """Yield log p(x) in nats of one tile of images after the other, float64 [n].

    Importance sampling with q(z|x) as proposal: the log-mean-exp of the log importance
    weights, whose expectation is at most log p(x) and tends to it as the number of
    samples in `settings.Evaluation` grows (Burda et al., arXiv 1509.00519, equation
    (8)). Memory does not depend on that number. The images of a group share their
    noise: each estimate is as good as with noise of its own, at a twentieth of the cost
    of drawing. Only the mean over images gains a little variance, which vanishes as the
    number of samples grows.

    XLA compiles it if `settings.Run` says so. With `bfloat16`, whose products are slow
    there, the networks run outside of it, and only what follows them is compiled. Where
    a run has several processes each has its tiles; those of the others are 0.
    """
    num_samples, images = settings.importance_samples, len(split.pixels)
    jit = numerics.compiles(model, run_settings)
    if settings.bfloat16:
        weights = numerics.in_bfloat16(weights)
    compiled = compiled_groups(jit and not settings.bfloat16)
    at_once = SAMPLES if jit else numerics.UNFUSED

    def tile_at(first):
        if first // numerics.TILE % run_settings.processes != run_settings.worker:
            return np.zeros(min(numerics.TILE, images - first))  # another's
        rows = tf.minimum(tf.range(first, first + numerics.TILE), images - 1)
        tile = Split(*(tf.gather(part, rows) for part in split))
        tile = tile if model.conditional else tile._replace(labels=None)
        log_sum = tf.fill([numerics.TILE], -math.inf)
        for noise, missing in tile_noise(model, key, first // IMAGES, num_samples):
            noise = tf.reshape(noise, [-1, at_once, *noise.shape[2:]])
            log_sum = compiled(model, weights, tile, log_sum, noise, missing)
            process.remove_generated()
        found = log_sum.numpy()[: images - first]
        return found.astype(np.float64) - math.log(num_samples)

    # While one tile is busy on a single core, the other has the second.
    with ThreadPoolExecutor(numerics.TILES) as pool:
        yield from pool.map(tile_at, range(0, images, numerics.TILE))


def tile_noise(model, key, first_lane: int, num_samples: int):
    """Yield (noise [groups, SAMPLES, L, D] of the tile's L groups of images, how many
    of its last samples are too many)."""
    groups = -(-num_samples // SAMPLES)
    lanes = numerics.TILE // IMAGES
    for first in range(0, groups, numerics.CALLS):
        count = min(numerics.CALLS, groups - first)
        shape = count, SAMPLES, 1, sum(model.latent_dims)
        missing = max(0, (first + count) * SAMPLES - num_samples)
        at = tf.constant(first), tf.constant(first_lane)
        yield noise_of(key, *at, shape, lanes), tf.constant(missing)


@tf.function(autograph=False)  # a GPU takes 15 times as long op by op
def noise_of(key, first, first_lane, shape, lanes: int):
    """Noise [groups, SAMPLES, lanes, D] of neighboring groups of images."""
    draws = [rng.normal_rows(key, first, shape, first_lane + i) for i in range(lanes)]
    return tf.concat(draws, axis=2)


@functools.cache
def compiled_groups(jit: bool):
    """`add_groups` as one compiled function, which later evaluations find compiled."""
    return tf.function(add_groups, jit_compile=jit)


def add_groups(model, weights, tile, log_sum, noise, missing):
    """Add the weights of all samples but the last `missing` to exp(log_sum) [B].

    The noise is [groups, at once, L, D], for L groups of images.
    """
    x, y = batches.to_batch(*tile)
    if noise.shape[2] > 1:
        noise = tf.repeat(
            noise, IMAGES, axis=2
        )  # else it is broadcast, which is faster
    groups, at_once = noise.shape[:2]
    wanted = groups * at_once - missing
    for i in tf.range(groups):
        log_w = log_weights(model, weights, x, y, tf.gather(noise, i))
        asked = (i * at_once + tf.range(at_once))[:, None] < wanted
        log_w = tf.where(asked, log_w, -math.inf)
        log_sum = tf.reduce_logsumexp(tf.concat([log_w, log_sum[None]], axis=0), axis=0)
    return log_sum


@tf.autograph.experimental.do_not_convert
def log_weights(model, weights, x, y, noise):
    """log importance weights [K, B] of samples by the noise [K, 1 or B, D]."""
    inference = model.infer(weights, x, noise, y)
    in_bfloat16 = any(w.dtype == tf.bfloat16 for w in tf.nest.flatten(weights))
    return (compiled_weigh if in_bfloat16 else weigh)(inference, x)


def weigh(inference, x):
    """log importance weights [K, B], without gradients."""
    return terms.log_importance_weights(inference, x, log_p=terms.log_likelihood_alone)


compiled_weigh = tf.function(weigh, jit_compile=True, autograph=False)
