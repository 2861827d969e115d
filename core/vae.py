"""The variational autoencoder of Kingma and Welling (arXiv 1312.6114), appendix C.

x [B, 784] -> dense layers -> z_mean, z_log_var -> z -> dense layers -> logits. Three
functions (`init`, `infer`, `generate`) and the two records that every model returns.
Axes are always [K samples, B images, D dimensions].
"""

import math
from typing import NamedTuple

import tensorflow as tf

from core import distributions, networks

PIXELS = 784

ACTIVATIONS = {
    "relu": tf.nn.relu,
    "tanh": tf.nn.tanh,
    "gelu": tf.nn.gelu,
    "silu": tf.nn.silu,
}


class Latent(NamedTuple):
    """One layer of latent variables: a sample, its posterior and its prior."""

    z: tf.Tensor  # [K, B, D], drawn from the posterior
    posterior_mean: tf.Tensor  # [B, D], of q(z|x)
    posterior_log_var: tf.Tensor  # [B, D]
    prior_mean: tf.Tensor  # broadcasts to [K, B, D], of p(z)
    prior_log_var: tf.Tensor


class Inference(NamedTuple):
    """What a forward pass yields; objective and evaluation see nothing else."""

    latents: tuple[Latent, ...]
    logits: tf.Tensor  # [K, B, 784], of p(x|z)


def init(seed: int, hidden_sizes, latent_dim: int, mean_pixel=0.5, dtype=tf.float32):
    """{"encoder": ..., "decoder": ...}; the decoder mirrors the encoder.

    The output bias starts at the logit of `mean_pixel`, the training set's mean in
    [0, 1] (kept within 0.001 of the ends, where the logit is infinite), so that
    training begins at the right ink density.
    """
    hidden = tuple(hidden_sizes)
    mean_pixel = min(max(mean_pixel, 0.001), 0.999)
    output_bias = math.log(mean_pixel / (1 - mean_pixel))
    encoder_sizes = (PIXELS, *hidden, 2 * latent_dim)
    decoder_sizes = (latent_dim, *reversed(hidden), PIXELS)
    return {
        "encoder": networks.init_mlp(seed, "encoder", encoder_sizes, 0, dtype=dtype),
        "decoder": networks.init_mlp(
            seed, "decoder", decoder_sizes, len(hidden) + 1, output_bias, dtype
        ),
    }


def infer(params, x, noise, activation) -> Inference:
    """Encode x [B, 784], sample z with noise [K, B, D] ~ N(0, 1), decode.

    The encoder's one output matrix gives z_mean and z_log_var side by side.
    """
    z_mean, z_log_var = tf.split(
        networks.mlp(params["encoder"], x, activation), 2, axis=-1
    )
    z = distributions.gaussian_sample(z_mean, z_log_var, noise)
    standard = tf.zeros([], x.dtype)  # the prior is N(0, 1): mean 0, log variance 0
    latent = Latent(z, z_mean, z_log_var, standard, standard)
    return Inference((latent,), generate(params, z, activation))


def generate(params, z, activation):
    """z [..., D] -> Bernoulli logits [..., 784] of p(x|z)."""
    return networks.mlp(params["decoder"], z, activation)
