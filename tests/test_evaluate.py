import functools

import numpy as np
import pytest
import tensorflow as tf

from core import batches, evaluate, rng, vae


@pytest.fixture
def model(digits):
    """(params, pixels [60, 784], to_float)."""
    pixels = batches.held_out_pixels(
        batches.flatten(digits[1].images), 1, "static", seed=0
    )
    to_float = functools.partial(batches.to_float, binarization="static")
    return vae.init(0, (16,), 3, 0.13), pixels, to_float


def evaluate_with(model, seed=0, index=1):
    params, pixels, to_float = model
    infer = functools.partial(vae.infer, activation=tf.tanh)
    return evaluate.make_evaluate(infer, params, to_float, seed, 3)(pixels, index)


def test_evaluation_agrees_with_numpy_in_float64(model):
    params, pixels, _ = model
    params = tf.nest.map_structure(lambda p: p.numpy().astype(np.float64), params)

    def net(layers, x):
        hidden = np.tanh(x @ layers["dense_0"]["w"] + layers["dense_0"]["b"])
        return hidden @ layers["output"]["w"] + layers["output"]["b"]

    x = pixels.numpy().astype(np.float64)
    mean, log_var = np.split(net(params["encoder"], x), 2, axis=1)
    noise = rng.normal(rng.key(0, rng.Stream.EVALUATE, 3), [60, 3]).numpy()
    logits = net(params["decoder"], mean + np.exp(log_var / 2) * noise)
    distortion = np.mean(np.sum(np.logaddexp(0, logits) - x * logits, axis=1))
    rate = np.mean(np.sum((mean**2 + np.exp(log_var) - 1 - log_var) / 2, axis=1))
    found = evaluate_with(model)
    expected = [distortion + rate, distortion, rate]
    np.testing.assert_allclose(found[:3], expected, rtol=1e-6)
    np.testing.assert_allclose(found.z_mean, mean, atol=1e-5)


def test_the_size_of_a_chunk_does_not_change_the_result(model, monkeypatch):
    whole = evaluate_with(model)
    monkeypatch.setattr(evaluate, "CHUNK", 7)
    parts = evaluate_with(model)
    np.testing.assert_allclose(parts[:3], whole[:3], rtol=1e-6)
    np.testing.assert_allclose(parts.z_mean, whole.z_mean, atol=1e-6)


def test_the_noise_is_of_the_seed_and_the_split(model):
    assert evaluate_with(model)[:4] == evaluate_with(model)[:4]
    assert evaluate_with(model).distortion != evaluate_with(model, seed=1).distortion
    assert evaluate_with(model).distortion != evaluate_with(model, index=0).distortion


def test_active_units_are_those_whose_mean_varies():
    spread = np.sqrt([0.0099, 0.0101, 1.0, 0.0])
    signs = np.tile([[1.0], [-1.0]], [50, 1])
    assert evaluate.active_units(5 + signs * spread) == 2
