"""Priors p(z) of the uppermost layer of latents: the record, and N(0, 1).

Learned ones have a file each: `mixture`, `vamp` and `flow`.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from core.model import distributions


class Prior(NamedTuple):
    """A density over z. `params` are the whole model's, of which it may have some."""

    init: Callable  # (keys, mean_pixel, dtype) -> its part of params, {} for none
    log_prob: Callable  # (params, z [K, B, D]) -> log p(z) in nats, [K, B]
    sample: Callable  # (params, noise [..., noise_size]) -> z [..., D]
    noise_size: int  # N(0, 1) numbers that a draw needs
    # (mean, log_var [K, B, D], log q - log p [K, B]) -> KL in nats [K, B, G]
    kl: Callable
    exact_kl: bool  # whether that is a closed form, for each dimension by itself
    pseudo_inputs: Callable | None = None  # params -> those that it has [C, inputs]
    parts: Callable | None = None  # params -> logits [C], means, log variances [C, D]


def standard(latent_dim: int) -> Prior:
    """N(0, 1) in every dimension; it has no parameters."""
    return Prior(
        init=lambda keys, mean_pixel, dtype: {},
        log_prob=lambda params, z: standard_log_prob(z),
        sample=lambda params, noise: noise,
        noise_size=latent_dim,
        kl=lambda mean, log_var, log_ratio: distributions.gaussian_kl(mean, log_var),
        exact_kl=True,
        parts=lambda params: (tf.zeros([1]), *2 * [tf.zeros([1, latent_dim])]),
    )


def standard_log_prob(z):
    """log N(z | 0, 1) in nats, [...], of z [..., D]."""
    zero = tf.zeros([], z.dtype)
    return tf.reduce_sum(distributions.gaussian_log_prob(z, zero, zero), axis=-1)


def kl_by_samples(mean, log_var, log_ratio):
    """The KL of a whole layer, [K, B, 1]: its mean over K is an estimate."""
    return log_ratio[..., None]
