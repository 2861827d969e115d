"""What a forward pass yields, and its terms for each example.

Axes are always [K samples, B images, D dimensions]; everything is in nats.
"""

from typing import NamedTuple

import tensorflow as tf

from core.model import distributions


class Latent(NamedTuple):
    """One layer of latents, which states its own densities: nobody asks what they are.

    G is D where the prior factorizes over dimensions, and else 1.
    """

    z: tf.Tensor  # [K, B, D], drawn from the posterior
    mean: tf.Tensor  # [B, D], of the posterior given x alone
    mean_error: tf.Tensor  # [B, D], variance of the estimate `mean`; 0 if it is exact
    log_posterior: tf.Tensor  # [K, B]
    log_prior: tf.Tensor  # [K, B]
    kl: tf.Tensor  # [B, G], in closed form where there is one, else by the K samples


class Inference(NamedTuple):
    """A forward pass; objective and evaluation see nothing else of a model."""

    latents: tuple[Latent, ...]  # from the one next to the image upwards
    logits: tf.Tensor  # [K, B, 784], of p(x|z)


def log_likelihood(inference, x):
    """log p(x|z), [K, B]: summed over pixels, one for each sample."""
    return distributions.bernoulli_log_likelihood(x, inference.logits)


def log_likelihood_alone(inference, x):
    """The same without a gradient, in less time."""
    return distributions.bernoulli_log_likelihood_alone(x, inference.logits)


def log_prior(inference):
    """log p(z), [K, B]: summed over dimensions and layers."""
    return tf.add_n([latent.log_prior for latent in inference.latents])


def log_posterior(inference):
    """log q(z|x), [K, B]: summed over dimensions and layers."""
    return tf.add_n([latent.log_posterior for latent in inference.latents])


def log_importance_weights(inference, x, kl_weight=1.0, log_p=log_likelihood):
    """log w = log p(x|z) + kl_weight (log p(z) - log q(z|x)), [K, B].

    Burda et al. (arXiv 1509.00519), equation (7), with kl_weight = 1: its mean over K
    is the ELBO's estimate, its log-mean-exp that of the bound L_K. `log_p` gives
    log p(x|z).
    """
    log_ratio = log_prior(inference) - log_posterior(inference)
    return log_p(inference, x) + kl_weight * log_ratio


def normalized_weights(inference, x):
    """w_k / sum_k w_k, [K, B]."""
    return tf.nn.softmax(log_importance_weights(inference, x), axis=0)


def kl(inference):
    """KL(q(z|x) || p(z)), [B]: summed over dimensions and layers."""
    return tf.add_n([tf.reduce_sum(latent.kl, axis=-1) for latent in inference.latents])
