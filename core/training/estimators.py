"""Gradients of lower variance for the encoders.

The gradient of a bound reaches an encoder's weights on three ways: through the samples
z, through log q(z|x), and through log p(z) where a prior shares them. Both estimators
follow the path through z with a weight of their own, leave out the direct dependence of
log q(z|x), and keep that of log p(z), z held fixed, with the bound's own weight.

* stl, "sticking the landing", for the ELBO: what is left out is 0 in the mean. Roeder
  et al. (arXiv 1703.09194).
* dreg, doubly reparameterized, for the IWAE bound: what is left out has the mean of a
  second gradient through z. Together they give sample k's path the weight
  (w_k / sum_k w_k)^2: one factor is in the bound's own gradient, the other is what
  `path_weights` returns. Tucker et al. (arXiv 1810.04152), equation (8), which is
  derived for a KL weight of 1.

With two layers (Bauer and Mnih, arXiv 2101.11046, section 4) z_1 and z_2 are one sample
of q(z_1, z_2|x): z_2 and log q(z_2|z_1) still depend on z_1.
"""

import tensorflow as tf

from core.model import terms


def gradients(tape, loss, model, params, inference, weights):
    """The gradients of `loss` by `params`, in which an encoder's are the estimator's.

    `tape` is persistent and has seen the forward pass; `weights` are `path_weights`.
    """
    samples = [latent.z for latent in inference.latents]
    top = inference.latents[-1]
    sources = params, samples, top.log_prior
    grads, by_samples, by_log_prior = tape.gradient(loss, sources)
    encoders = {name: params[name] for name in model.encoders}
    with tf.GradientTape() as direct:
        direct.watch(encoders)
        log_prior = model.prior.log_prob(params, tf.stop_gradient(top.z))
    shared = direct.gradient(log_prior, encoders, output_gradients=by_log_prior)
    for name, z, by_z in zip(model.encoders, samples, by_samples, strict=True):
        through_z = tape.gradient(z, params[name], output_gradients=weights * by_z)
        grads[name] = tf.nest.map_structure(_sum, through_z, shared[name])
    return grads


def _sum(grad, other):
    return grad if other is None else grad + other


def path_weights(inference, x, estimator: str):
    """What multiplies the path through z: 1 for stl, w_k / sum w [K, B, 1] for dreg."""
    if estimator == "stl":
        return 1.0
    return terms.normalized_weights(inference, x)[..., None]
