"""The variational autoencoder of Kingma and Welling (arXiv 1312.6114), appendix C.

x [B, 784] -> encoder -> z_mean, z_log_var -> z -> decoder -> logits. Functions and the
two records that every model returns. Axes are always [K samples, B images, D
dimensions]. With labels y [B, 10] it is conditional: q(z|x,y), p(x|z,y), and every
likelihood is one of x given y (Sohn et al., NeurIPS 2015).
"""

import math
from typing import NamedTuple

import tensorflow as tf

from core import distributions, networks


class Latent(NamedTuple):
    """One layer of latent variables: a sample, its posterior and its prior."""

    z: tf.Tensor  # [K, B, D], drawn from the posterior
    posterior_mean: tf.Tensor  # broadcasts to [K, B, D], of q(z|x)
    posterior_log_var: tf.Tensor
    prior_mean: tf.Tensor  # [] where it is N(0, 1), else [K, B, D], of p(z)
    prior_log_var: tf.Tensor


class Inference(NamedTuple):
    """What a forward pass yields; objective and evaluation see nothing else."""

    latents: tuple[Latent, ...]  # from the one next to the image upwards
    logits: tf.Tensor  # [K, B, 784], of p(x|z)


def init(
    seed: int,
    hidden_sizes,
    latent_dim: int,
    mean_pixel=0.5,
    dtype=tf.float32,
    classes=0,
    filters=(),
):
    """{"encoder": ..., "decoder": ...}; convolutional if two `filters` are given."""
    keys = networks.matrix_keys(seed)
    return init_networks(
        keys, hidden_sizes, latent_dim, mean_pixel, dtype, classes, filters
    )


def init_networks(keys, hidden_sizes, latent_dim, mean_pixel, dtype, classes, filters):
    """The encoder x -> 2 latent_dim and the decoder that mirrors it, z -> x.

    The output bias starts at the logit of `mean_pixel`, the training set's mean in
    [0, 1] (kept within 0.001 of the ends, where the logit is infinite), so that
    training begins at the right ink density.
    """
    mean_pixel = min(max(mean_pixel, 0.001), 0.999)
    bias = math.log(mean_pixel / (1 - mean_pixel))
    shared = dict(dtype=dtype, classes=classes)
    if filters:
        encoder = networks.init_conv_encoder(
            keys, "encoder", filters, 2 * latent_dim, **shared
        )
        decoder = networks.init_conv_decoder(
            keys, "decoder", filters, latent_dim, bias, **shared
        )
    else:
        sizes = (networks.PIXELS, *hidden_sizes, 2 * latent_dim)
        encoder = networks.init_mlp(keys, "encoder", sizes, **shared)
        sizes = (latent_dim, *reversed(hidden_sizes), networks.PIXELS)
        decoder = networks.init_mlp(keys, "decoder", sizes, bias, **shared)
    return {"encoder": encoder, "decoder": decoder}


def infer(params, x, noise, activation, y=None) -> Inference:
    """Encode x [B, 784], sample z with noise ~ N(0, 1), decode.

    The noise is [K, B, D], or [K, 1, D] for all images alike. The encoder's one output
    matrix gives z_mean and z_log_var side by side.
    """
    z_mean, z_log_var = tf.split(
        networks.encode(params["encoder"], x, activation, y), 2, axis=-1
    )
    z = distributions.gaussian_sample(z_mean, z_log_var, noise)
    standard = tf.zeros([], x.dtype)  # the prior is N(0, 1): mean 0, log variance 0
    latent = Latent(z, z_mean, z_log_var, standard, standard)
    return Inference((latent,), decode(params, z, activation, y))


def decode(params, z, activation, y=None):
    """z [..., D] -> Bernoulli logits [..., 784] of p(x|z)."""
    return networks.decode(params["decoder"], z, activation, y)


generate = decode  # from noise ~ N(0, 1), for the prior is just that
