"""What a rate is made of: "ELBO surgery" (Hoffman and Johnson, NIPS 2016 workshop).

Their section 2: with n uniform over the N images, and the aggregate posterior
q(z) = 1/N sum_n q(z|x_n),

  1/N sum_n KL(q(z|x_n) || p(z)) = I(n; z) + KL(q(z) || p(z)),  I(n; z) <= log N.
"""

import numpy as np
import tensorflow as tf

from core import rng
from core.evaluation import bounds
from core.model import distributions, mixture

NUMBERS = 2**24  # differences between z and posterior means in memory at a time


def split_rate(model, weights, split, seed: int, jit: bool):
    """(I(n; z), KL(q(z) || p(z))) in nats of all images of a `Split`, estimated by one
    z of each. None for two layers: p(z_1) has no density in closed form."""
    if len(model.latent_dims) > 1:
        return None
    mean, log_var = bounds.posteriors(model, weights, split)
    noise = rng.normal(rng.key(seed, rng.Stream.EVALUATE, 6), mean.shape)
    z = distributions.gaussian_sample(mean, log_var, noise)
    log_q = np.sum(distributions.gaussian_log_prob(z, mean, log_var), axis=1)
    aggregate = tf.function(mixture.log_prob, jit_compile=jit, autograph=False)
    equal, at_once, found = tf.zeros([len(mean)]), max(1, NUMBERS // mean.size), []
    for i in range(0, len(mean), at_once):
        part = z[i : i + at_once]
        log_p = model.prior.log_prob(weights, part[None])[0]
        found.append([aggregate(part, equal, mean, log_var), log_p])
    log_aggregate, log_p = np.concatenate(found, axis=1)
    differences = log_q - log_aggregate, log_aggregate - log_p
    return tuple(float(np.mean(each, dtype=np.float64)) for each in differences)
