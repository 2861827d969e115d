import numpy as np
import pytest
import tensorflow as tf

from core import hierarchical, objective

LOWER, UPPER = 4, 3


@pytest.fixture
def params():
    return hierarchical.init(0, (16,), (LOWER, UPPER), (8, 6), 0.13, tf.float64)


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    x = random.integers(0, 2, [5, 784]).astype(float)
    return tf.constant(x), tf.constant(random.standard_normal([2, 5, LOWER + UPPER]))


def net(layers, x):
    for i in range(len(layers) - 1):
        layer = layers[f"dense_{i}"]
        x = np.tanh(x @ layer["w"].numpy() + layer["b"].numpy())
    return x @ layers["output"]["w"].numpy() + layers["output"]["b"].numpy()


def log_normal(z, mean, log_var):
    density = -0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))
    return density.sum(axis=-1)


def test_the_networks_between_the_layers_mirror_each_other(params):
    shapes = {
        net: [tuple(layer["w"].shape) for layer in params[net].values()]
        for net in ("upper_encoder", "upper_decoder")
    }
    assert shapes["upper_encoder"] == [(LOWER, 8), (8, 6), (6, 2 * UPPER)]
    assert shapes["upper_decoder"] == [(UPPER, 6), (6, 8), (8, 2 * LOWER)]


def test_log_weights_are_the_model_written_out(params, batch):
    """log p(x|z1) + log p(z1|z2) + log p(z2) - log q(z1|x) - log q(z2|z1)."""
    x, noise = (array.numpy() for array in batch)
    mean_1, log_var_1 = np.split(net(params["encoder"], x), 2, axis=-1)
    z_1 = mean_1 + np.exp(log_var_1 / 2) * noise[..., :LOWER]
    mean_2, log_var_2 = np.split(net(params["upper_encoder"], z_1), 2, axis=-1)
    z_2 = mean_2 + np.exp(log_var_2 / 2) * noise[..., LOWER:]
    prior = np.split(net(params["upper_decoder"], z_2), 2, axis=-1)
    logits = net(params["decoder"], z_1)
    expected = np.sum(x * logits - np.logaddexp(0, logits), axis=-1)
    expected += log_normal(z_1, *prior) + log_normal(z_2, 0.0, 0.0)
    expected -= log_normal(z_1, mean_1, log_var_1) + log_normal(z_2, mean_2, log_var_2)
    inference = hierarchical.infer(params, *batch, tf.tanh)
    found = objective.log_importance_weights(inference, batch[0])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    kl_1, kl_2 = objective.kl_per_dim(inference)
    by_samples = log_normal(z_1, mean_1, log_var_1) - log_normal(z_1, *prior)
    np.testing.assert_allclose(tf.reduce_sum(kl_1, 1), by_samples.mean(0), rtol=1e-9)
    analytic = (mean_2**2 + np.exp(log_var_2) - 1 - log_var_2) / 2
    np.testing.assert_allclose(kl_2, analytic.mean(0), rtol=1e-9)


def test_generation_goes_from_the_top_down(params):
    noise = np.random.default_rng(0).standard_normal([6, LOWER + UPPER])
    mean, log_var = np.split(net(params["upper_decoder"], noise[:, LOWER:]), 2, axis=-1)
    z_1 = mean + np.exp(log_var / 2) * noise[:, :LOWER]
    expected = net(params["decoder"], z_1)
    found = hierarchical.generate(params, tf.constant(noise), tf.tanh)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(
        hierarchical.decode(params, tf.constant(z_1), tf.tanh), expected, rtol=1e-10
    )


def test_labels_reach_every_network():
    params = hierarchical.init(0, (8,), (LOWER, UPPER), (6,), classes=10)
    inputs = {name: layers["dense_0"]["w"].shape[0] for name, layers in params.items()}
    assert inputs == dict(
        encoder=794, decoder=LOWER + 10, upper_encoder=LOWER + 10, upper_decoder=13
    )
    noise, y = tf.zeros([2, LOWER + UPPER]), tf.one_hot([1, 7], 10)
    logits = hierarchical.generate(params, noise, tf.tanh, y)
    assert not np.allclose(logits[0], logits[1])
