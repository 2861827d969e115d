"""From the terms of each example to the one scalar that is minimized."""

from typing import NamedTuple

import tensorflow as tf

from core.model import distributions, terms


class Losses(NamedTuple):
    """Batch means in nats an image. distortion + rate is -ELBO, whatever `loss` is."""

    loss: tf.Tensor  # []: what is minimized
    distortion: tf.Tensor  # []
    rate: tf.Tensor  # []


def losses(inference, x, settings, kl_weight=1.0) -> Losses:
    """What `settings.Objective` minimizes, of K samples an image.

    * elbo: distortion + kl_weight * rate, Kingma and Welling (arXiv 1312.6114),
      equation (10). With `free_bits`, each dimension's KL, averaged over the batch,
      counts as at least that: Kingma et al. (arXiv 1606.04934), appendix C.8.
    * elbo with the estimator stl, which needs the KL by samples: minus the mean of
      log w. See `estimators`.
    * iwae: minus the log of the mean of w over the samples, Burda et al. (arXiv
      1509.00519), equation (8), whatever the estimator.
    """
    distortion = -tf.reduce_mean(terms.log_likelihood(inference, x))  # of [K, B]
    rate = tf.reduce_mean(terms.kl(inference))  # of [B]
    if settings.objective == "elbo" and settings.estimator == "standard":
        floor = settings.free_bits
        counted = floored_rate(inference, floor) if floor else rate
        return Losses(distortion + kl_weight * counted, distortion, rate)
    log_w = terms.log_importance_weights(inference, x, kl_weight)  # [K, B]
    iwae = settings.objective == "iwae"
    bound = distributions.log_mean_exp(log_w) if iwae else log_w
    return Losses(-tf.reduce_mean(bound), distortion, rate)


def floored_rate(inference, free_bits: float):
    """The rate in which every group of dimensions (each by itself, where the prior
    factorizes) counts for at least `free_bits` nats."""
    means = [tf.reduce_mean(latent.kl, axis=0) for latent in inference.latents]
    return tf.reduce_sum(tf.maximum(tf.concat(means, axis=0), free_bits))
