"""From an `Inference` to terms for each example, and to the one scalar minimized."""

from typing import NamedTuple

import tensorflow as tf

from core import distributions


class Losses(NamedTuple):
    """Batch means in nats an image: loss = distortion + rate = -ELBO."""

    loss: tf.Tensor  # []
    distortion: tf.Tensor  # []
    rate: tf.Tensor  # []


def log_likelihood(inference, x):
    """log p(x|z) in nats, [K, B]: summed over pixels, one for each sample."""
    log_prob = distributions.bernoulli_log_prob(x, inference.logits)
    return tf.reduce_sum(log_prob, axis=-1)


def kl_per_dim(inference):
    """Analytic KL(q(z|x) || p(z)) in nats, [B, D] for each layer of latents."""
    return tuple(
        distributions.gaussian_kl(
            latent.posterior_mean,
            latent.posterior_log_var,
            latent.prior_mean,
            latent.prior_log_var,
        )
        for latent in inference.latents
    )


def kl(inference):
    """KL(q(z|x) || p(z)) in nats, [B]: summed over dimensions and layers."""
    return tf.add_n([tf.reduce_sum(layer, axis=-1) for layer in kl_per_dim(inference)])


def negative_elbo(inference, x) -> Losses:
    """-ELBO, with the sample mean of the distortion and the exact rate.

    Kingma and Welling (arXiv 1312.6114), equation (10). The means over samples and
    over the batch are taken once, here, last.
    """
    distortion = -tf.reduce_mean(log_likelihood(inference, x))
    rate = tf.reduce_mean(kl(inference))
    return Losses(distortion + rate, distortion, rate)
