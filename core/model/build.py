"""The model that the settings ask for: the only place that asks which family it is."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from core.model import hierarchical, networks, priors, vae


class Model(NamedTuple):
    """A model is a few pure functions of its parameters, and what is known of them.

    `tf.function` tells two of them apart by identity: build one, and pass it on.
    """

    init: Callable  # (seed, mean_pixel=0.5, dtype=float32) -> params
    infer: Callable  # (params, x [B, 784], noise [K, B, D], y=None) -> Inference
    encode: Callable  # (params, x, y=None) -> mean, log_var of the lowest q(z|x) [B, D]
    decode: Callable  # (params, z [..., D], y=None) -> logits [..., 784]
    sample: Callable  # (params, noise [..., noise_size], y=None) -> logits of a draw
    prior: priors.Prior  # of the uppermost layer
    latent_dims: tuple[int, ...]  # of each layer, from the image upwards
    noise_size: int  # N(0, 1) numbers that a draw from the prior needs
    conditional: bool  # whether it is given labels
    encoders: tuple[str, ...]  # the parts of params that stl and dreg treat apart
    dense: bool  # whether it is made of matrices alone


def build(settings) -> Model:
    """The model that `settings.Model` asks for."""
    two = settings.stochastic_layers == 2
    family = hierarchical if two else vae
    *lower_dims, upper_dim = settings.latents
    prior = priors.standard(upper_dim)
    activation = networks.ACTIVATIONS[settings.activation]
    return Model(
        init=partial(family.init, settings),
        infer=partial(family.infer, activation=activation, prior=prior),
        encode=partial(family.encode, activation=activation),
        decode=partial(family.decode, activation=activation),
        sample=partial(family.sample, activation=activation, prior=prior),
        prior=prior,
        latent_dims=settings.latents,
        noise_size=sum(lower_dims) + prior.noise_size,
        conditional=settings.conditional,
        encoders=("encoder", "upper_encoder") if two else ("encoder",),
        dense=settings.architecture == "dense",
    )
