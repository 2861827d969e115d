"""Closed forms. Logits and log variances end to end: never a probability."""

import math

import tensorflow as tf

from core import numerics

MAX_LOG_VAR = 10.0  # no posterior is so wide; a rare image could overflow exp else


def gaussian_parameters(outputs):
    """What a network gives [..., 2 D] -> mean and log variance, [..., D] each."""
    mean, log_var = tf.split(outputs, 2, axis=-1)
    return mean, tf.minimum(log_var, MAX_LOG_VAR)


def ink_logit(mean_pixel: float) -> float:
    """The logit of a training set's mean pixel in [0, 1], which is kept within 0.001 of
    the ends, where it is infinite."""
    mean_pixel = min(max(mean_pixel, 0.001), 0.999)
    return math.log(mean_pixel / (1 - mean_pixel))


def gaussian_sample(mean, log_var, noise):
    """mean + exp(log_var / 2) * noise, with noise ~ N(0, 1); shapes broadcast.

    The reparameterization of Kingma and Welling (arXiv 1312.6114), section 2.4.
    """
    return mean + tf.exp(0.5 * log_var) * noise


def gaussian_log_prob(z, mean, log_var):
    """log N(z | mean, exp log_var) in nats, of each dimension by itself."""
    difference = z - mean
    scaled = difference * difference * tf.exp(-log_var)
    return -0.5 * (scaled + log_var + math.log(2 * math.pi))


def gaussian_kl(mean, log_var):
    """KL(N(mean, exp log_var) || N(0, 1)) in nats, >= 0, of each dimension by itself.

    Kingma and Welling, appendix B: (mean^2 + exp(log_var) - 1 - log_var) / 2.
    """
    return 0.5 * (mean * mean + tf.math.expm1(log_var) - log_var)


@tf.custom_gradient
def bernoulli_log_likelihood(x, logits):
    """log Bernoulli(x | sigmoid(logits)) in nats, summed over the last axis, [...].

    Of a pixel it is l x - max(l, 0) - log(1 + exp(-|l|)), finite at any logit l, with
    an absolute error of a rounding or two near 1 (log1p is slower, and no better in
    a sum of pixels). The gradient is the closed form,
    x - sigmoid(l), because automatic differentiation of max and |.| is wrong at l = 0
    (and slower everywhere). x [..., D] broadcasts to logits [..., D]; it is data, and
    gets none. It is computed on rows, as in the network that made the logits.
    """
    rows = numerics.as_rows(logits)
    x = tf.reshape(tf.broadcast_to(x, tf.shape(logits)), tf.shape(rows))

    def gradient(upstream):
        by_rows = tf.reshape(upstream, [-1, 1]) * (x - tf.sigmoid(rows))
        return None, tf.reshape(by_rows, tf.shape(logits))

    log_normalizer = tf.nn.relu(rows) + tf.math.log(1 + tf.exp(-tf.abs(rows)))
    log_p = numerics.sum_rows(rows * x - log_normalizer)
    return tf.reshape(log_p, tf.shape(logits)[:-1]), gradient


def bernoulli_log_likelihood_alone(x, logits):
    """`bernoulli_log_likelihood` where no gradient is wanted, in less time: the sum of
    log(1 + exp(-|l|)) is taken as logarithms of products."""
    rows = numerics.as_rows(logits)
    x = tf.reshape(tf.broadcast_to(x, tf.shape(logits)), tf.shape(rows))
    log_p = numerics.sum_rows(rows * x - tf.nn.relu(rows))
    log_p -= numerics.sum_logs(1 + tf.exp(-tf.abs(rows)))
    return tf.reshape(log_p, tf.shape(logits)[:-1])


def log_mean_exp(x):
    """log of the mean of exp(x) over the first axis; exact where exp would overflow."""
    return tf.reduce_logsumexp(x, axis=0) - math.log(x.shape[0])
