"""From uint8 images to the float batches that a step sees.

Pixels stay uint8 until the step that uses them: 0 and 1 once they are binarized,
0 to 255 where they stay grey (`binarization="none"`).
"""

import numpy as np
import tensorflow as tf

from core import mnist, rng


def flatten(images: np.ndarray) -> tf.Tensor:
    """uint8 [N, 28, 28] -> uint8 [N, 784]."""
    return tf.constant(images.reshape(len(images), mnist.SIDE**2))


def mean_pixel(images: np.ndarray) -> float:
    """The mean of all uint8 pixels, in [0, 1]."""
    return float(np.mean(images, dtype=np.float64) / 255)


@tf.function(autograph=False)
def binarize(images, key):
    """Bernoulli(pixel / 255) for every pixel of uint8 [N, 784] -> uint8 0 or 1.

    A byte u of randomness decides u < pixel, with u uniform over 0 .. 254: where u is
    255, the byte of the same pixel of the image before stands in for it. So the
    probability is pixel / 255 to within 2^-16, and exact for black and for white.
    """
    u = tf.reshape(rng.random_bytes(key, images.shape.num_elements()), images.shape)
    return _less_than_pixel(u, images)


@tf.function(jit_compile=True)
def _less_than_pixel(u, images):
    u = tf.minimum(tf.where(u == 255, tf.roll(u, 1, axis=0), u), 254)
    return tf.cast(u < images, tf.uint8)


def epoch_pixels(images, binarization: str, seed: int, epoch: int) -> tf.Tensor:
    """The training set uint8 [N, 784] as epoch `epoch` (from 0) sees it."""
    index = epoch + 1 if binarization == "dynamic" else 0
    return _pixels(images, binarization, rng.key(seed, rng.Stream.BINARIZE, index))


def fixed_pixels(images, binarization: str, seed: int, index: int) -> tf.Tensor:
    """Split number `index`, uint8 [N, 784], as every evaluation of the run sees it."""
    return _pixels(images, binarization, rng.key(seed, rng.Stream.EVALUATE, 2 * index))


def _pixels(images, binarization, key):
    if binarization == "threshold":
        return tf.cast(images >= 128, tf.uint8)
    return images if binarization == "none" else binarize(images, key)


def to_batch(pixels, labels, binarization: str, conditional=False, dtype=tf.float32):
    """uint8 pixels [B, 784] and labels [B] -> what the model sees.

    x is in [0, 1]; y as by `one_hot`.
    """
    x = tf.cast(pixels, dtype)
    x = x * (1 / 255) if binarization == "none" else x
    return x, one_hot(labels, conditional, dtype)


def one_hot(labels, conditional: bool, dtype=tf.float32):
    """Labels [B] as y [B, 10]; None for a model without labels."""
    return tf.one_hot(labels, mnist.CLASSES, dtype=dtype) if conditional else None


def epoch_order(seed: int, epoch: int, num_images: int, batch_size: int) -> tf.Tensor:
    """Row numbers int32 [steps, batch_size]: every image at most once an epoch.

    What does not fill a last batch sits this epoch out; the next epoch's order is new.
    """
    order = rng.permutation(rng.key(seed, rng.Stream.SHUFFLE, epoch), num_images)
    steps = num_images // batch_size
    return tf.reshape(order[: steps * batch_size], [steps, batch_size])
