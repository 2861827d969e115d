"""Two layers of latents: the model of Burda et al. (arXiv 1509.00519), section 5.

Inference goes upwards, x -> z_1 -> z_2, by q(z_1|x) q(z_2|z_1); generation downwards,
p(z_2) p(z_1|z_2) p(x|z_1) with p(z_2) = N(0, 1). All are diagonal Gaussians but the
pixels. The networks between x and z_1 are those of the one-layer model.
"""

import tensorflow as tf

from core import distributions, networks, vae
from core.vae import Inference, Latent


def init(
    seed: int,
    hidden_sizes,
    latent_dims: tuple[int, int],
    upper_hidden_sizes,
    mean_pixel=0.5,
    dtype=tf.float32,
    classes=0,
    filters=(),
):
    """The one-layer model's parameters for z_1, and "upper_encoder", z_1 -> z_2, and
    "upper_decoder", z_2 -> z_1, with `upper_hidden_sizes` between them."""
    keys, (lower, upper) = networks.matrix_keys(seed), latent_dims
    params = vae.init_networks(
        keys, hidden_sizes, lower, mean_pixel, dtype, classes, filters
    )
    shared = dict(dtype=dtype, classes=classes)
    up = (lower, *upper_hidden_sizes, 2 * upper)
    down = (upper, *reversed(upper_hidden_sizes), 2 * lower)
    return params | {
        "upper_encoder": networks.init_mlp(keys, "upper_encoder", up, **shared),
        "upper_decoder": networks.init_mlp(keys, "upper_decoder", down, **shared),
    }


def infer(params, x, noise, activation, y=None) -> Inference:
    """x [B, 784], noise [K, B or 1, D1 + D2] ~ N(0, 1), z_1's part first."""
    q_1 = _halves(networks.encode(params["encoder"], x, activation, y))
    noise_1, noise_2 = _by_layer(noise, q_1[0].shape[-1])
    z_1 = distributions.gaussian_sample(*q_1, noise_1)
    q_2 = _halves(networks.mlp(params["upper_encoder"], z_1, activation, y))
    z_2 = distributions.gaussian_sample(*q_2, noise_2)
    standard = tf.zeros([], x.dtype)
    latents = (
        Latent(z_1, *q_1, *_prior(params, z_2, activation, y)),
        Latent(z_2, *q_2, standard, standard),
    )
    return Inference(latents, decode(params, z_1, activation, y))


decode = vae.decode  # z_1 [..., D1] -> Bernoulli logits [..., 784] of p(x|z_1)


def generate(params, noise, activation, y=None):
    """noise [..., D1 + D2] ~ N(0, 1) -> logits [..., 784] of a draw from the prior."""
    lower = params["upper_decoder"]["output"]["b"].shape[0] // 2
    noise_1, z_2 = _by_layer(noise, lower)
    z_1 = distributions.gaussian_sample(*_prior(params, z_2, activation, y), noise_1)
    return decode(params, z_1, activation, y)


def _prior(params, z_2, activation, y):
    """Mean and log variance of p(z_1|z_2), [..., D1] each."""
    return _halves(networks.mlp(params["upper_decoder"], z_2, activation, y))


def _halves(outputs):
    return tf.split(outputs, 2, axis=-1)


def _by_layer(noise, lower: int):
    return noise[..., :lower], noise[..., lower:]
