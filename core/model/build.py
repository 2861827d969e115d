"""The model that the settings ask for: the only place that asks which family it is."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from core.model import flow, hierarchical, mixture, networks, priors, vae, vamp


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
    exact_kl: bool  # whether the KL of every layer is in closed form
    dense: bool  # whether it is made of matrices alone


def build(settings) -> Model:
    """The model that `settings.Model` asks for."""
    two = settings.stochastic_layers == 2
    family = hierarchical if two else vae
    *lower_dims, upper_dim = settings.latents
    activation = networks.ACTIVATIONS[settings.activation]
    prior = build_prior(settings, upper_dim, activation)
    return Model(
        init=partial(family.init, settings, prior),
        infer=partial(family.infer, activation=activation, prior=prior),
        encode=partial(family.encode, activation=activation),
        decode=partial(family.decode, activation=activation),
        sample=partial(family.sample, activation=activation, prior=prior),
        prior=prior,
        latent_dims=settings.latents,
        noise_size=sum(lower_dims) + prior.noise_size,
        conditional=settings.conditional,
        encoders=("encoder", "upper_encoder") if two else ("encoder",),
        exact_kl=not two and prior.exact_kl,
        dense=settings.architecture == "dense",
    )


def build_prior(settings, latent_dim: int, activation) -> priors.Prior:
    """The prior that `settings.Model` asks for, of the uppermost layer of latents."""
    components = settings.prior_components
    if settings.prior == "mixture":
        return mixture.mixture(latent_dim, components)
    if settings.prior == "flow":
        layers, units = settings.flow_layers, settings.flow_units
        return flow.flow(latent_dim, layers, units, activation)
    if settings.prior == "vamp" and settings.stochastic_layers == 2:
        encode = partial(hierarchical.encode_upper, activation=activation)
        return vamp.of_points(latent_dim, components, settings.latent_dims[0], encode)
    if settings.prior == "vamp":
        encode = partial(vae.encode, activation=activation)
        return vamp.of_images(latent_dim, components, encode)
    return priors.standard(latent_dim)
