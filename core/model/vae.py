"""The variational autoencoder of Kingma and Welling (arXiv 1312.6114), appendix C.

x [B, 784] -> encoder -> z_mean, z_log_var -> z -> decoder -> logits. With labels y
[B, 10] it is conditional: q(z|x,y), p(x|z,y), and every likelihood is one of x given y
(Sohn et al., NeurIPS 2015).
"""

import tensorflow as tf

from core.data.digits import CLASSES, PIXELS
from core.model import distributions, networks
from core.model.terms import Inference, Latent


def init(settings, prior, seed: int, mean_pixel=0.5, dtype=tf.float32):
    """{"encoder": ..., "decoder": ...} as `settings.Model` wants them, and what the
    prior has."""
    keys = networks.matrix_keys(seed)
    params = init_networks(settings, keys, settings.latent_dim, mean_pixel, dtype)
    return params | prior.init(keys, mean_pixel, dtype)


def init_networks(settings, keys, latent_dim: int, mean_pixel, dtype):
    """The encoder x -> 2 latent_dim and the decoder that mirrors it, z -> x.

    The output bias starts at the logit of the training set's `mean_pixel`, so that
    training begins at the right ink density.
    """
    bias = distributions.ink_logit(mean_pixel)
    shared = dict(dtype=dtype, classes=CLASSES if settings.conditional else 0)
    if settings.architecture == "conv":
        filters = settings.filters
        encoder = networks.init_conv_encoder(keys, filters, 2 * latent_dim, **shared)
        decoder = networks.init_conv_decoder(keys, filters, latent_dim, bias, **shared)
    else:
        sizes = (PIXELS, *settings.hidden_sizes, 2 * latent_dim)
        encoder = networks.init_mlp(keys, "encoder", sizes, **shared)
        sizes = (latent_dim, *reversed(settings.hidden_sizes), PIXELS)
        decoder = networks.init_mlp(keys, "decoder", sizes, bias, **shared)
    return {"encoder": encoder, "decoder": decoder}


def infer(params, x, noise, y=None, *, activation, prior) -> Inference:
    """Encode x [B, 784], sample z with noise ~ N(0, 1), decode.

    The noise is [K, B, D], or [K, 1, D] for all images alike.
    """
    z_mean, z_log_var = encode(params, x, y, activation=activation)  # [B, D] each
    z = distributions.gaussian_sample(z_mean, z_log_var, noise)  # [K, B, D]
    by_dim = distributions.gaussian_log_prob(z, z_mean, z_log_var)  # [K, B, D]
    log_q, log_p = tf.reduce_sum(by_dim, axis=-1), prior.log_prob(params, z)  # [K, B]
    kl = prior.kl(z_mean[None], z_log_var[None], log_q - log_p)  # [1 or K, B, G]
    latent = Latent(
        z,
        mean=z_mean,
        mean_error=tf.zeros_like(z_mean),
        log_posterior=log_q,
        log_prior=log_p,
        kl=tf.reduce_mean(kl, axis=0),  # [B, G]
    )
    logits = decode(params, z, y, activation=activation)  # [K, B, 784]
    return Inference((latent,), logits)


def encode(params, x, y=None, *, activation):
    """x [B, 784] -> mean and log variance of q(z|x), [B, D] each: the halves of what
    the encoder's one output matrix gives."""
    outputs = networks.encode(params["encoder"], x, activation, y)
    return distributions.gaussian_parameters(outputs)


def decode(params, z, y=None, *, activation):
    """z [..., D] -> Bernoulli logits [..., 784] of p(x|z)."""
    return networks.decode(params["decoder"], z, activation, y)


def sample(params, noise, y=None, *, activation, prior):
    """noise [..., prior.noise_size] ~ N(0, 1) -> logits [..., 784] of a draw."""
    return decode(params, prior.sample(params, noise), y, activation=activation)
