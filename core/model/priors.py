"""Priors p(z) of the uppermost layer of latents."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from core.model import distributions


class Prior(NamedTuple):
    """A density over z. `params` are the whole model's, of which it may have some."""

    log_prob: Callable  # (params, z [K, B, D]) -> log p(z) in nats, [K, B]
    kl: Callable  # (params, z, mean, log_var) -> nats, shaped as mean but G for D
    sample: Callable  # (params, noise [..., noise_size]) -> z [..., D]
    noise_size: int  # N(0, 1) numbers that a draw needs


def standard(latent_dim: int) -> Prior:
    """N(0, 1) in every dimension; it has no parameters."""
    return Prior(_log_prob, _kl, _sample, noise_size=latent_dim)


def _log_prob(params, z):
    zero = tf.zeros([], z.dtype)
    return tf.reduce_sum(distributions.gaussian_log_prob(z, zero, zero), axis=-1)


def _kl(params, z, mean, log_var):
    """In closed form, for each dimension by itself."""
    return distributions.gaussian_kl(mean, log_var)


def _sample(params, noise):
    return noise
