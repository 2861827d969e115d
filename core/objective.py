"""From an `Inference` to terms for each example, and to the one scalar minimized."""

from typing import NamedTuple

import tensorflow as tf

from core import distributions


class Losses(NamedTuple):
    """Batch means in nats an image. distortion + rate is -ELBO, whatever `loss` is."""

    loss: tf.Tensor  # []: what is minimized
    distortion: tf.Tensor  # []
    rate: tf.Tensor  # []


# --- Terms ----------------------------------------------------------------------------


def log_likelihood(inference, x):
    """log p(x|z) in nats, [K, B]: summed over pixels, one for each sample."""
    return distributions.bernoulli_log_likelihood(x, inference.logits)


def log_prior(inference):
    """log p(z) in nats, [K, B]: summed over dimensions and layers."""
    return _sum(
        distributions.gaussian_log_prob(
            latent.z, latent.prior_mean, latent.prior_log_var
        )
        for latent in inference.latents
    )


def log_posterior(inference):
    """log q(z|x) in nats, [K, B]: summed over dimensions and layers."""
    return _sum(
        distributions.gaussian_log_prob(
            latent.z, latent.posterior_mean, latent.posterior_log_var
        )
        for latent in inference.latents
    )


def _sum(layers):
    """The sum over layers, and over the dimensions of each."""
    return tf.add_n([tf.reduce_sum(layer, axis=-1) for layer in layers])


def log_importance_weights(inference, x, kl_weight=1.0):
    """log w = log p(x|z) + kl_weight (log p(z) - log q(z|x)) in nats, [K, B].

    Burda et al. (arXiv 1509.00519), equation (7), with kl_weight = 1: its mean over K
    is the ELBO's estimate, its log-mean-exp that of the bound L_K.
    """
    log_ratio = log_prior(inference) - log_posterior(inference)
    return log_likelihood(inference, x) + kl_weight * log_ratio


def normalized_weights(inference, x):
    """w_k / sum_k w_k, [K, B]."""
    return tf.nn.softmax(log_importance_weights(inference, x), axis=0)


def kl_per_dim(inference):
    """KL(q(z|x) || p(z)) in nats, [B, D] for each layer of latents.

    Analytic where the prior is N(0, 1). A prior that depends on a sample of the layer
    above, itself inferred from this layer, leaves no closed form: there it is log q -
    log p averaged over the K samples, and can be negative.
    """
    return tuple(map(_layer_kl, inference.latents))


def _layer_kl(latent):
    z, mean, log_var, prior_mean, prior_log_var = latent
    if prior_mean.shape.rank == 0:  # N(0, 1)
        kl = distributions.gaussian_kl(mean, log_var)
    else:
        kl = distributions.gaussian_log_prob(z, mean, log_var)
        kl -= distributions.gaussian_log_prob(z, prior_mean, prior_log_var)
    return tf.reduce_mean(kl, axis=0) if kl.shape.rank == 3 else kl


def kl(inference):
    """KL(q(z|x) || p(z)) in nats, [B]: summed over dimensions and layers."""
    return _sum(kl_per_dim(inference))


# --- What is minimized ----------------------------------------------------------------


def kl_weight_at(step, beta: float, warmup_steps: int):
    """The weight of the KL at `step` (from 0): up to `beta` in a straight line.

    Warm-up: Sonderby et al. (arXiv 1602.02282), after the annealing of Bowman et al.
    (arXiv 1511.06349). beta: Higgins et al. (2017).
    """
    if not warmup_steps:
        return beta
    return beta * tf.minimum(tf.cast(step, tf.float32) / warmup_steps, 1.0)


def losses(
    inference, x, objective="elbo", estimator="standard", kl_weight=1.0, free_bits=0.0
) -> Losses:
    """The scalar to minimize, beside -ELBO in its two parts, of K samples an image.

    * elbo: distortion + kl_weight * rate, Kingma and Welling (arXiv 1312.6114),
      equation (10). With `free_bits`, each dimension's KL, averaged over the batch,
      counts as at least that: Kingma et al. (arXiv 1606.04934), appendix C.8.
    * elbo with the estimator stl, which needs the KL by samples: minus the mean of
      log w. See `step.loss_and_gradients`.
    * iwae: minus the log of the mean of w over the samples, Burda et al. (arXiv
      1509.00519), equation (8), whatever the estimator.
    """
    distortion = -tf.reduce_mean(log_likelihood(inference, x))
    rate = tf.reduce_mean(kl(inference))
    if objective == "elbo" and estimator == "standard":
        counted = floored_rate(inference, free_bits) if free_bits else rate
        return Losses(distortion + kl_weight * counted, distortion, rate)
    log_w = log_importance_weights(inference, x, kl_weight)
    bound = distributions.log_mean_exp(log_w) if objective == "iwae" else log_w
    return Losses(-tf.reduce_mean(bound), distortion, rate)


def floored_rate(inference, free_bits: float):
    """The rate in which every dimension counts for at least `free_bits` nats."""
    means = [tf.reduce_mean(layer, axis=0) for layer in kl_per_dim(inference)]
    return tf.reduce_sum(tf.maximum(tf.concat(means, axis=0), free_bits))
