"""Grey pixels -> black or white ones, as an epoch sees them, or every evaluation."""

import zlib

import numpy as np
import tensorflow as tf

from core import rng


@tf.function(autograph=False)
def binarize(images, key):
    """Bernoulli(pixel / 255) for every pixel of uint8 [N, 784] -> bool [N, 784].

    A byte u of randomness decides u < pixel, with u uniform over 0 .. 254: where u is
    255, the byte of the same pixel of the image before stands in for it. So the
    probability is pixel / 255 to within 2^-16, and exact for black and for white.
    """
    u = tf.reshape(rng.random_bytes(key, images.shape.num_elements()), images.shape)
    return _less_than_pixel(u, images)


@tf.function(jit_compile=True)
def _less_than_pixel(u, images):
    u = tf.minimum(tf.where(u == 255, tf.roll(u, 1, axis=0), u), 254)
    return u < images


def epoch_pixels(images, binarization: str, seed: int, epoch: int) -> tf.Tensor:
    """The training set uint8 [N, 784] as epoch `epoch` (from 0) sees it."""
    index = epoch + 1 if binarization == "dynamic" else 0
    return _pixels(images, binarization, rng.key(seed, rng.Stream.BINARIZE, index))


def fixed_pixels(images, binarization: str, seed: int, index: int) -> tf.Tensor:
    """Split number `index`, uint8 [N, 784], as every evaluation of the run sees it."""
    return _pixels(images, binarization, rng.key(seed, rng.Stream.EVALUATE, 2 * index))


def own_pixels(images, binarization: str, seed: int, index: int) -> tf.Tensor:
    """A user's images uint8 [N, 784]: each is drawn by a key of what is in it, and so
    the same wherever among others it stands."""
    key = rng.key(seed, rng.Stream.EVALUATE, 2 * index)
    if binarization in ("threshold", "none"):
        return _pixels(images, binarization, key)
    numbers = np.array([zlib.crc32(image) for image in images.numpy()], np.uint32)
    return _each_by_itself(images, numbers.view(np.int32), key)


@tf.function(autograph=False, reduce_retracing=True)
def _each_by_itself(images, numbers, key):
    def of(each):
        image, number = each
        return binarize(tf.stack([image, image]), rng.fold(key, number))[0]

    return tf.map_fn(of, (images, numbers), fn_output_signature=tf.bool)


def _pixels(images, binarization, key):
    if binarization == "threshold":
        return images >= 128
    return images if binarization == "none" else binarize(images, key)
