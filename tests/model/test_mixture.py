from statistics import NormalDist

import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.model import mixture, terms
from core.model.build import build

SIZES = dict(hidden_sizes=(5,), upper_hidden_sizes=(5,), latent_dims=(4, 2))
WEIGHTS = np.array([0.1, 0.2, 0.7])
MEAN = np.array([[0.0, 3.0], [1.0, 2.0], [2.0, -4.0]])


@pytest.mark.parametrize("layers", [1, 2])
def test_one_component_at_the_origin_is_the_standard_prior(layers):
    """The log weights are the same."""
    shared = dict(stochastic_layers=layers, **SIZES)
    model = build(settings.Model(prior="mixture", prior_components=1, **shared))
    standard = build(settings.Model(**shared))
    params, random = model.init(0, 0.3, tf.float64), np.random.default_rng(0)
    params["prior"]["mean"].assign(tf.zeros([1, 2], tf.float64))
    params["prior"]["logits"].assign([5.0])  # which means nothing
    x = tf.constant(random.integers(0, 2, [5, 784]).astype(float))
    noise = tf.constant(random.standard_normal([4, 5, sum(model.latent_dims)]))
    found, expected = (
        terms.log_importance_weights(each.infer(params, x, noise), x)
        for each in (model, standard)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_density_is_the_components_weighted_sum():
    """Also where every component's own density is 0 in floating point."""
    random = np.random.default_rng(0)
    log_var, z = random.standard_normal([3, 2]), random.standard_normal([4, 5, 2])
    z[0, 0] = 1e3
    by_dim = (z[..., None, :] - MEAN) ** 2 / np.exp(log_var)
    by_dim = -0.5 * (by_dim + log_var + np.log(2 * np.pi))
    expected = np.logaddexp.reduce(np.log(WEIGHTS) + by_dim.sum(-1), axis=-1)
    found = mixture.log_prob(z, np.log(WEIGHTS) + 3.0, MEAN, log_var)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_first_number_chooses_a_component_by_its_weight(dtype):
    """On either side of each limit, and at both ends; the others are the draw."""
    limits = [NormalDist().inv_cdf(p) for p in (0.1, 0.3)]
    first = [-100, -4, limits[0] - 1e-5, limits[0] + 1e-5, 0]
    first[4:4] = [limits[1] - 1e-5, limits[1] + 1e-5]
    chosen = [0, 0, 0, 1, 1, 2, 2, 2, 2]
    noise = np.full([9, 3], [0.0, 1.0, -0.5])
    noise[:, 0] = [*first, 7, 100]
    log_var = np.log([[1.0, 4.0], [9.0, 1.0], [16.0, 25.0]])
    parts = (tf.constant(part, dtype) for part in (np.log(WEIGHTS), MEAN, log_var))
    found = mixture.sample(tf.constant(noise, dtype), *parts)
    expected = MEAN[chosen] + np.exp(log_var / 2)[chosen] * noise[:, 1:]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_begins_with_equal_unit_gaussians_around_draws():
    prior = build(settings.Model(prior="mixture", prior_components=500)).init(0)[
        "prior"
    ]
    for name in ("logits", "log_var"):
        np.testing.assert_array_equal(prior[name], tf.zeros_like(prior[name]))
    assert prior["mean"].shape == (500, 2)
    assert np.mean(prior["mean"]) == pytest.approx(0, abs=4 / np.sqrt(1000))
    assert np.var(prior["mean"]) == pytest.approx(1, abs=4 * np.sqrt(2 / 1000))
