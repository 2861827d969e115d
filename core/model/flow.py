"""A learned prior: the RealNVP of Dinh et al. (arXiv 1605.08803).

An invertible map f from z to noise e ~ N(0, 1), made of affine couplings, and so
log p(z) = log N(f(z) | 0, 1) + log |det df/dz|: equation (3).
"""

import tensorflow as tf

from core.model import networks
from core.model.priors import Prior, kl_by_samples, standard_log_prob


def flow(latent_dim: int, layers: int, units: int, activation) -> Prior:
    """`layers` couplings of two hidden layers of `units` each; f begins as the
    identity, and so the prior as N(0, 1)."""
    sizes = latent_dim // 2, latent_dim - latent_dim // 2

    def init(keys, mean_pixel, dtype):
        couplings = {}
        for i in range(layers):
            name, kept, moved = f"coupling_{i}", sizes[i % 2], sizes[1 - i % 2]
            shape = kept, units, units, 2 * moved
            coupling = networks.init_mlp(keys, f"prior/{name}", shape, dtype=dtype)
            start = tf.zeros_like(coupling["output"]["w"])
            coupling["output"]["w"] = tf.Variable(start, name=f"prior/{name}/output/w")
            couplings[name] = coupling
        return {"prior": couplings}

    def log_prob(params, z):
        e, log_det = to_noise(params["prior"], z, sizes, activation)
        return standard_log_prob(e) + log_det

    return Prior(
        init=init,
        log_prob=log_prob,
        sample=lambda params, e: from_noise(params["prior"], e, sizes, activation),
        noise_size=latent_dim,
        kl=kl_by_samples,
        exact_kl=False,
    )


def to_noise(couplings, z, sizes, activation):
    """z [..., D] -> e [..., D], and log |det de/dz| in nats [...].

    Equation (7): coupling i keeps one half of the dimensions (of `sizes`), and scales
    and shifts the other by what networks make of the first; the halves take turns.
    """
    halves, log_det = tf.split(z, sizes, axis=-1), 0.0
    for i in range(len(couplings)):
        kept, moved = i % 2, 1 - i % 2
        log_scale, shift = coupling(
            couplings[f"coupling_{i}"], halves[kept], activation
        )
        halves[moved] = halves[moved] * tf.exp(log_scale) + shift
        log_det += tf.reduce_sum(log_scale, axis=-1)
    return tf.concat(halves, axis=-1), log_det


def from_noise(couplings, e, sizes, activation):
    """The inverse, e [..., D] -> z [..., D]: equation (8)."""
    halves = tf.split(e, sizes, axis=-1)
    for i in reversed(range(len(couplings))):
        kept, moved = i % 2, 1 - i % 2
        log_scale, shift = coupling(
            couplings[f"coupling_{i}"], halves[kept], activation
        )
        halves[moved] = (halves[moved] - shift) * tf.exp(-log_scale)
    return tf.concat(halves, axis=-1)


def coupling(layers, kept, activation):
    """The half that a coupling keeps [..., D'] -> log scale, bounded by 1, and shift of
    the other, [..., D''] each."""
    outputs = networks.mlp(layers, kept, activation)
    log_scale, shift = tf.split(outputs, 2, axis=-1)
    return tf.tanh(log_scale), shift
