import math
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.model import hierarchical
from core.model.build import build

SIZES = dict(hidden_sizes=(5,), upper_hidden_sizes=(5,), filters=(2, 3))
VAMP = dict(prior="vamp", prior_components=3, activation="tanh", **SIZES)
TWO = settings.Model(stochastic_layers=2, latent_dims=(4, 2), **VAMP)
MODELS = {
    "one layer": settings.Model(**VAMP),
    "conv": settings.Model(architecture="conv", **VAMP),
    "two layers": TWO,
}


@pytest.fixture(params=MODELS)
def vamp(request):
    """(model, its parameters, what makes the posterior of its uppermost layer)."""
    model = build(MODELS[request.param])
    upper = partial(hierarchical.encode_upper, activation=tf.tanh)
    encode = upper if request.param == "two layers" else model.encode
    return model, model.init(0, 0.2, tf.float64), encode


def test_it_is_the_mean_of_the_posteriors_at_its_pseudo_inputs(vamp):
    """And moves with the encoder's weights, which it shares."""
    model, params, encode = vamp
    z = np.random.default_rng(0).standard_normal([4, 5, 1, 2])

    def by_hand():
        mean, log_var = encode(params, model.prior.pseudo_inputs(params))
        by_dim = (z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi)
        by_input = -0.5 * by_dim.numpy().sum(-1)
        return np.logaddexp.reduce(by_input, axis=-1) - math.log(3)

    before = by_hand()
    for _ in range(2):
        found = model.prior.log_prob(params, tf.constant(z[:, :, 0]))
        np.testing.assert_allclose(found, by_hand(), rtol=1e-12)
        params[model.encoders[-1]]["output"]["b"].assign_add([1.0, 0.5, 0.3, -0.2])
    assert not np.any(np.isclose(before, found))


def test_a_draw_is_of_one_of_those_posteriors(vamp):
    """The pseudo-inputs are equally likely."""
    model, params, encode = vamp
    noise = np.array([[-1.0, 1.0, 0.5], [0.0, 1.0, 0.5], [1.0, 1.0, 0.5]])
    mean, log_var = encode(params, model.prior.pseudo_inputs(params))
    expected = mean + np.exp(log_var / 2) * noise[:, 1:]
    found = model.prior.sample(params, tf.constant(noise))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("mean_pixel", [0.0, 0.2, 1.0])
def test_pseudo_inputs_of_one_layer_are_squares_around_the_mean_pixel(mean_pixel):
    model = build(settings.Model(**VAMP))
    params = model.init(0, mean_pixel, tf.float64)
    images = model.prior.pseudo_inputs(params).numpy()
    assert images.shape == (3, 784) and 0 < images.min() < images.max() < 1
    expected = np.clip(mean_pixel, 0.001, 0.999)
    squares = np.log(images / (1 - images)).reshape(3, 7, 4, 7, 4)  # as wide as a pen
    logits = squares[:, :, 0, :, 0]
    np.testing.assert_allclose(squares, logits[:, :, None, :, None] + 0 * squares)
    center, spread = math.log(expected / (1 - expected)), 4
    error = spread / np.sqrt(logits.size)
    assert np.mean(logits) == pytest.approx(center, abs=4 * error)
    assert np.std(logits) == pytest.approx(spread, abs=3 * error)
    assert len(np.unique(logits)) == logits.size


def test_pseudo_inputs_of_two_layers_are_points_of_the_lower():
    model = build(TWO)
    params = model.init(0)
    points = model.prior.pseudo_inputs(params)
    assert points.shape == (3, 4) and np.min(points) < 0
    np.testing.assert_array_equal(points, params["prior"]["inputs"])
