"""A learned prior: a mixture of diagonal Gaussians.

Dilokthanakul et al. (arXiv 1611.02648) and Tomczak and Welling (arXiv 1705.07120),
section 5, compare with it.
"""

import tensorflow as tf

from core import rng
from core.model import distributions
from core.model.priors import Prior, kl_by_samples


def mixture(latent_dim: int, components: int) -> Prior:
    """`components` Gaussians with learned weights, means and variances. They begin as
    equally likely unit Gaussians around draws from N(0, 1)."""

    def init(keys, mean_pixel, dtype):
        shape = [components, latent_dim]
        start = {
            "logits": tf.zeros([components], dtype),
            "mean": rng.normal(next(keys), shape, dtype),
            "log_var": tf.zeros(shape, dtype),
        }
        return {
            "prior": {k: tf.Variable(v, name=f"prior/{k}") for k, v in start.items()}
        }

    def parts(params):
        prior = params["prior"]
        return prior["logits"], prior["mean"], prior["log_var"]

    return Prior(
        init=init,
        log_prob=lambda params, z: log_prob(z, *parts(params)),
        sample=lambda params, noise: sample(noise, *parts(params)),
        noise_size=1 + latent_dim,
        kl=kl_by_samples,
        exact_kl=False,
        parts=parts,
    )


def log_prob(z, logits, mean, log_var):
    """log sum_c softmax(logits)_c N(z | mean_c, exp log_var_c) in nats.

    z [..., D], logits [C], mean and log_var [C, D] -> [...].
    """
    by_dim = distributions.gaussian_log_prob(z[..., None, :], mean, log_var)
    by_component = tf.nn.log_softmax(logits) + tf.reduce_sum(by_dim, axis=-1)
    return tf.reduce_logsumexp(by_component, axis=-1)


def sample(noise, logits, mean, log_var):
    """noise [..., 1 + D] ~ N(0, 1) -> z [..., D]: the first number chooses a component
    by its quantile, the others are the draw from it."""
    quantile = 0.5 * tf.math.erfc(noise[..., :1] * -(0.5**0.5))
    below = tf.cumsum(tf.nn.softmax(logits))[:-1] < quantile  # [..., C - 1]
    chosen = tf.reduce_sum(tf.cast(below, tf.int32), axis=-1)
    chosen = tf.gather(mean, chosen), tf.gather(log_var, chosen)
    return distributions.gaussian_sample(*chosen, noise[..., 1:])
