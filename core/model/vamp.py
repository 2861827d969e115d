"""A learned prior: the VampPrior of Tomczak and Welling (arXiv 1705.07120).

Equation (9): the mean of the posteriors at learned pseudo-inputs. It shares the
encoder's weights, so that it goes where the encoder goes.
"""

import tensorflow as tf

from core import rng
from core.data.digits import PIXELS, SIDE
from core.model import distributions, mixture
from core.model.priors import Prior, kl_by_samples

# Pseudo-inputs begin as squares of random greys, as wide as a pen's stroke: an encoder
# would tell finer noise from nothing.
PATCH, CONTRAST = 4, 4.0


def of_images(latent_dim: int, components: int, encode) -> Prior:
    """The prior of one layer, whose pseudo-inputs are images in (0, 1).

    encode(params, inputs [C, 784]) gives mean and log variance of q(z|x), [C, D] each.
    """

    def init(keys, mean_pixel, dtype):
        start = distributions.ink_logit(mean_pixel)
        patches = rng.normal(
            next(keys), [components, SIDE // PATCH, SIDE // PATCH], dtype
        )
        images = tf.repeat(tf.repeat(patches, PATCH, axis=1), PATCH, axis=2)
        return _init(start + CONTRAST * tf.reshape(images, [components, PIXELS]))

    def pseudo_inputs(params):
        return tf.sigmoid(params["prior"]["inputs"])

    return _vamp(latent_dim, components, init, pseudo_inputs, encode)


def of_points(latent_dim: int, components: int, lower_dim: int, encode) -> Prior:
    """The prior of the upper of two layers, whose pseudo-inputs are points of z_1.

    encode(params, inputs [C, D1]) gives mean and log variance of q(z_2|z_1).
    """

    def init(keys, mean_pixel, dtype):
        return _init(rng.normal(next(keys), [components, lower_dim], dtype))

    def pseudo_inputs(params):
        return tf.identity(params["prior"]["inputs"])

    return _vamp(latent_dim, components, init, pseudo_inputs, encode)


def _init(start):
    return {"prior": {"inputs": tf.Variable(start, name="prior/inputs")}}


def _vamp(latent_dim, components, init, pseudo_inputs, encode) -> Prior:
    def parts(params):
        mean, log_var = encode(params, pseudo_inputs(params))
        return tf.zeros([components], mean.dtype), mean, log_var

    return Prior(
        init=init,
        log_prob=lambda params, z: mixture.log_prob(z, *parts(params)),
        sample=lambda params, noise: mixture.sample(noise, *parts(params)),
        noise_size=1 + latent_dim,
        kl=kl_by_samples,
        exact_kl=False,
        pseudo_inputs=pseudo_inputs,
        parts=parts,
    )
