"""Two layers of latents: the model of Burda et al. (arXiv 1509.00519), section 5.

Inference goes upwards, x -> z_1 -> z_2, by q(z_1|x) q(z_2|z_1); generation downwards,
p(z_2) p(z_1|z_2) p(x|z_1). All but p(z_2) and the pixels are diagonal Gaussians. The
networks between x and z_1 are those of the one-layer model.
"""

import tensorflow as tf

from core.data.digits import CLASSES
from core.model import distributions, networks, vae
from core.model.terms import Inference, Latent


def init(settings, prior, seed: int, mean_pixel=0.5, dtype=tf.float32):
    """The one-layer model's parameters for z_1, "upper_encoder", z_1 -> z_2, and
    "upper_decoder", z_2 -> z_1, as `settings.Model` wants them, and the prior's."""
    keys, (lower, upper) = networks.matrix_keys(seed), settings.latent_dims
    params = vae.init_networks(settings, keys, lower, mean_pixel, dtype)
    shared = dict(dtype=dtype, classes=CLASSES if settings.conditional else 0)
    between = settings.upper_hidden_sizes
    up = (lower, *between, 2 * upper)
    down = (upper, *reversed(between), 2 * lower)
    params["upper_encoder"] = networks.init_mlp(keys, "upper_encoder", up, **shared)
    params["upper_decoder"] = networks.init_mlp(keys, "upper_decoder", down, **shared)
    return params | prior.init(keys, mean_pixel, dtype)


def infer(params, x, noise, y=None, *, activation, prior) -> Inference:
    """x [B, 784], noise [K, B or 1, D1 + D2] ~ N(0, 1), z_1's part first."""
    q_1 = encode(params, x, y, activation=activation)  # [B, D1] each
    noise_1, noise_2 = _by_layer(noise, q_1[0].shape[-1])
    z_1 = distributions.gaussian_sample(*q_1, noise_1)  # [K, B, D1]
    q_2 = encode_upper(params, z_1, y, activation=activation)  # [K, B, D2] each
    z_2 = distributions.gaussian_sample(*q_2, noise_2)  # [K, B, D2]
    p_1 = lower_prior(params, z_2, y, activation=activation)  # [K, B, D1] each
    latents = (
        _lower(z_1, q_1, p_1),
        _upper(z_2, q_2, prior.log_prob(params, z_2), prior),
    )
    logits = decode(params, z_1, y, activation=activation)  # [K, B, 784]
    return Inference(latents, logits)


def _lower(z, q, p) -> Latent:
    """z_1, drawn from q. Its prior p depends on a sample of the layer above, itself
    inferred from this one, which leaves no closed form of the KL: it is log q - log p
    averaged over the samples, and can be negative."""
    log_q = distributions.gaussian_log_prob(z, *q)  # [K, B, D1]
    log_p = distributions.gaussian_log_prob(z, *p)
    return Latent(
        z,
        mean=q[0],
        mean_error=tf.zeros_like(q[0]),
        log_posterior=tf.reduce_sum(log_q, axis=-1),
        log_prior=tf.reduce_sum(log_p, axis=-1),
        kl=tf.reduce_mean(log_q - log_p, axis=0),
    )


def _upper(z, q, log_p, prior) -> Latent:
    """z_2, drawn from q, which depends on a sample of z_1: given x alone its mean is
    estimated, over those samples."""
    mean, variance = tf.nn.moments(q[0], axes=[0])  # [B, D2] each
    log_q = tf.reduce_sum(distributions.gaussian_log_prob(z, *q), axis=-1)  # [K, B]
    return Latent(
        z,
        mean=mean,
        mean_error=variance / max(z.shape[0] - 1, 1),
        log_posterior=log_q,
        log_prior=log_p,
        kl=tf.reduce_mean(prior.kl(*q, log_q - log_p), axis=0),
    )


encode = vae.encode  # x -> mean and log variance of q(z_1|x), [B, D1] each
decode = vae.decode  # z_1 [..., D1] -> Bernoulli logits [..., 784] of p(x|z_1)


def encode_upper(params, z_1, y=None, *, activation):
    """z_1 [..., D1] -> mean and log variance of q(z_2|z_1), [..., D2] each."""
    outputs = networks.mlp(params["upper_encoder"], z_1, activation, y)
    return distributions.gaussian_parameters(outputs)


def lower_prior(params, z_2, y=None, *, activation):
    """z_2 [..., D2] -> mean and log variance of p(z_1|z_2), [..., D1] each."""
    outputs = networks.mlp(params["upper_decoder"], z_2, activation, y)
    return distributions.gaussian_parameters(outputs)


def sample(params, noise, y=None, *, activation, prior):
    """noise [..., D1 + prior.noise_size] ~ N(0, 1) -> logits [..., 784] of a draw."""
    lower = params["upper_decoder"]["output"]["b"].shape[0] // 2
    noise_1, noise_2 = _by_layer(noise, lower)
    z_2 = prior.sample(params, noise_2)
    mean_and_log_var = lower_prior(params, z_2, y, activation=activation)
    z_1 = distributions.gaussian_sample(*mean_and_log_var, noise_1)
    return decode(params, z_1, y, activation=activation)


def _by_layer(noise, lower: int):
    return noise[..., :lower], noise[..., lower:]
