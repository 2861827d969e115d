"""From uint8 images to the float batches that a step sees.

Pixels stay one byte until the step that uses them: bool once they are binarized, uint8
from 0 to 255 where they stay grey (`binarization="none"`).
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from core import numerics, rng
from core.data import binarization
from core.data.digits import CLASSES, PIXELS


class Epoch(NamedTuple):
    """The training set as one epoch sees it."""

    pixels: tf.Tensor  # bool or uint8 [N, 784]
    labels: tf.Tensor | None  # [N]; None for a model without labels
    order: tf.Tensor  # int32 [steps, B]: the rows of each step


class Block(NamedTuple):
    """What a block of steps sees: one batch after the other."""

    pixels: tf.Tensor  # bool or uint8 [n, B, 784]
    labels: tf.Tensor | None  # [n, B]
    noise: tf.Tensor  # [n, K, B, D]
    count: tf.Tensor  # int32 []: how many of the n steps are to be taken


class Batch(NamedTuple):
    """What a step sees."""

    x: tf.Tensor  # [B, 784], in [0, 1]
    y: tf.Tensor | None  # [B, 10]; None for a model without labels
    noise: tf.Tensor  # [K, B, D], N(0, 1)


def flatten(images: np.ndarray) -> tf.Tensor:
    """uint8 [N, 28, 28] -> uint8 [N, 784]."""
    return tf.constant(images.reshape(len(images), PIXELS))


def mean_pixel(images) -> float:
    """The mean of all uint8 pixels, in [0, 1]."""
    return float(np.mean(images, dtype=np.float64) / 255)


def to_batch(pixels, labels=None, dtype=tf.float32):
    """Pixels [B, 784], bool or uint8, and labels [B] or None -> x in [0, 1], and y."""
    x = tf.cast(pixels, dtype)
    x = x * (1 / 255) if pixels.dtype == tf.uint8 else x
    return x, one_hot(labels, dtype)


def one_hot(labels, dtype=tf.float32):
    """Labels [B] -> y [B, 10]; None, for a model without labels, stays None."""
    return None if labels is None else tf.one_hot(labels, CLASSES, dtype=dtype)


# --- Epoch, block, batch --------------------------------------------------------------


def epoch_order(seed: int, epoch: int, num_images: int, batch_size: int) -> tf.Tensor:
    """Row numbers int32 [steps, batch_size]: every image at most once an epoch.

    What does not fill a last batch sits this epoch out; the next epoch's order is new.
    """
    order = rng.permutation(rng.key(seed, rng.Stream.SHUFFLE, epoch), num_images)
    steps = num_images // batch_size
    return tf.reshape(order[: steps * batch_size], [steps, batch_size])


def epoch(data, model, batch_size: int, seed: int, number: int) -> Epoch:
    """The training images of a `datasets.Data` in epoch `number` (from 0), and, for a
    conditional model, their labels."""
    images = data.train.pixels
    labels = data.train.labels if model.conditional else None
    pixels = binarization.epoch_pixels(images, data.binarization, seed, number)
    order = epoch_order(seed, number, len(images), batch_size)
    return Epoch(pixels, labels, order)


def block(epoch: Epoch, first: int, noise, count=None) -> Block:
    """`count` steps of an epoch from step `first` of it on, each with its noise; by
    default as many as there is noise for, or as are left.

    The tensors' shapes do not depend on `count`, so that one compilation serves all:
    rows beyond the epoch's end, which no step sees, are its last batch again.
    """
    last = epoch.order.shape[0] - 1
    count = min(len(noise), last + 1 - first) if count is None else count
    rows = tf.gather(epoch.order, tf.minimum(first + tf.range(noise.shape[0]), last))
    labels = None if epoch.labels is None else tf.gather(epoch.labels, rows)
    return Block(tf.gather(epoch.pixels, rows), labels, noise, tf.constant(count))


def batch(block: Block, i, dtype=tf.float32) -> Batch:
    """Batch number `i` (from 0) of a block, all of it of one type."""
    labels = None if block.labels is None else tf.gather(block.labels, i)
    x, y = to_batch(tf.gather(block.pixels, i), labels, dtype)
    return Batch(x, y, tf.cast(tf.gather(block.noise, i), dtype))


def rows(batch: Batch, first: int, last: int) -> Batch:
    """The images `first` .. `last - 1` of a batch, with their noise."""
    y = None if batch.y is None else batch.y[first:last]
    return Batch(batch.x[first:last], y, batch.noise[:, first:last])


def noise_shape(model, settings, batch_size: int, epoch_steps: int):
    """(n, K, B, D) of a block's noise, for the K samples of `settings.Objective`. An
    epoch is cut into equal blocks, as few as keep each at `numerics.BLOCK_SAMPLES` or
    little more."""
    num_samples = settings.num_samples
    samples = epoch_steps * batch_size * num_samples * numerics.sample_cost(model)
    n = math.ceil(epoch_steps / math.ceil(samples / numerics.BLOCK_SAMPLES))
    return n, num_samples, batch_size, sum(model.latent_dims)


def noise(seed: int, step: int, shape) -> tf.Tensor:
    """N(0, 1) noise of `shape` (n, K, B, D) for the n steps from `step` on.

    Each step's noise is a row of one table, so it does not depend on how steps are
    grouped. It is drawn outside the compiled block, where Philox runs ten times as fast
    on a CPU.
    """
    return rng.normal_rows(rng.key(seed, rng.Stream.POSTERIOR, 0), step, shape)
