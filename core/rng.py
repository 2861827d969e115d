"""Randomness as a function of position: (seed, stream, index) -> a stateless key.

No random state exists anywhere, so none has to be saved: a resumed run draws what the
uninterrupted one would have drawn. The generator is Philox 4x32-10 (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011). Draw outside of XLA: its Philox
is slower on a CPU, and yields other numbers for the same key.
"""

import enum
import math

import tensorflow as tf

PHILOX = 1  # TensorFlow's number for it
MAX_SEED = 2**31 - 1
MAX_INDEX = 2**28  # steps, epochs or matrices that one stream can number


class Stream(enum.IntEnum):
    """What a random number is for; two streams never share a key."""

    INIT = 0  # index: the matrix
    SHUFFLE = 1  # index: the epoch
    BINARIZE = 2  # index: 0 for the static draw, epoch + 1 for a dynamic one
    POSTERIOR = 3  # index: 0, row: the step; epoch + 1 of a diffusion model's latents
    EVALUATE = 4  # index: 2 * split for its pixels, + 1 for its z; 6 surgery as well
    SAMPLE = 5  # 0 figures, 1 generate, 2 a prior, 3 a page, 4 explorer, 5 scores
    SYNTHETIC = 6  # index: which property of the built-in digits
    LIKELIHOOD = 7  # index: the split; lane: group of images; row: group of samples


def key(seed, stream: Stream, index) -> tf.Tensor:
    """The int32 [2] key of a triple; different triples have different keys.

    `seed` is in [0, MAX_SEED], `index` (an integer or an int32 tensor) in
    [0, MAX_INDEX).
    """
    return tf.stack([seed, int(stream) * MAX_INDEX + index])


def fold(key, number) -> tf.Tensor:
    """A new int32 [2] key from a key and a number."""
    return tf.random.experimental.stateless_fold_in(key, number, alg="philox")


def normal(key, shape, dtype=tf.float32) -> tf.Tensor:
    """Standard normal numbers."""
    return tf.random.stateless_normal(shape, key, dtype=dtype, alg="philox")


def normal_rows(key, first, shape, lane=0) -> tf.Tensor:
    """Rows `first` .. `first + shape[0] - 1` of an endless table of standard normal
    numbers, each of `shape[1:]`, in one call. `lane` numbers the tables of a key.

    Philox numbers its outputs: a row begins where its number says, so that it does not
    depend on which rows are drawn together. Each output is four numbers; a row's last
    ones, if any are left over, are dropped.
    """
    count, size = shape[0], math.prod(shape[1:])
    outputs = -(-size // 4)
    words, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=key)
    start = tf.stack([tf.cast(first, tf.uint64) * outputs, tf.cast(lane, tf.uint64)])
    rows = tf.raw_ops.StatelessRandomNormalV2(
        shape=[count, 4 * outputs], key=words, counter=counter + start, alg=PHILOX
    )
    return tf.reshape(rows[:, :size], shape)


def uniform(key, shape, low=0.0, high=1.0, dtype=tf.float32) -> tf.Tensor:
    """Uniform numbers in [low, high)."""
    return tf.random.stateless_uniform(shape, key, low, high, dtype, alg="philox")


def random_bytes(key, count: int) -> tf.Tensor:
    """Uniform uint8 [count]: four from each 32-bit word of the generator."""
    words = tf.random.stateless_uniform(
        [-(-count // 4)], key, None, None, tf.uint32, alg="philox"
    )
    return tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:count]


def permutation(key, count: int) -> tf.Tensor:
    """The integers 0 .. count-1 in random order, int32 [count]."""
    return tf.random.experimental.stateless_shuffle(tf.range(count), key, alg="philox")
