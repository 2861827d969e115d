import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.model import hierarchical, priors, terms

LOWER, UPPER = 4, 3
TWO = dict(stochastic_layers=2, latent_dims=(LOWER, UPPER))
TANH = dict(activation=tf.tanh)
PRIOR = priors.standard(UPPER)
TANH_AND_PRIOR = dict(activation=tf.tanh, prior=PRIOR)


@pytest.fixture
def params():
    model = settings.Model(hidden_sizes=(16,), upper_hidden_sizes=(8, 6), **TWO)
    return hierarchical.init(model, PRIOR, 0, 0.13, tf.float64)


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
    inference = hierarchical.infer(params, *batch, **TANH_AND_PRIOR)
    found = terms.log_importance_weights(inference, batch[0])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    lower, upper = inference.latents
    np.testing.assert_allclose(lower.z, z_1, rtol=1e-10)
    np.testing.assert_allclose(upper.z, z_2, rtol=1e-10)
    log_q_1, log_p_1 = log_normal(z_1, mean_1, log_var_1), log_normal(z_1, *prior)
    np.testing.assert_allclose(lower.log_posterior, log_q_1, rtol=1e-10)
    np.testing.assert_allclose(lower.log_prior, log_p_1, rtol=1e-10)
    np.testing.assert_allclose(
        tf.reduce_sum(lower.kl, 1), (log_q_1 - log_p_1).mean(0), rtol=1e-9
    )
    assert lower.kl.shape == (5, LOWER)
    analytic = (mean_2**2 + np.exp(log_var_2) - 1 - log_var_2) / 2
    np.testing.assert_allclose(upper.kl, analytic.mean(0), rtol=1e-9)


def test_a_layer_states_the_mean_of_its_posterior_and_how_exact_it_is(params, batch):
    """That of z_2 given x is a mean over the samples of z_1."""
    x, _ = batch
    noise = np.random.default_rng(1).standard_normal([6, 5, LOWER + UPPER])
    inference = hierarchical.infer(params, x, tf.constant(noise), **TANH_AND_PRIOR)
    lower, upper = inference.latents
    mean_1, _ = hierarchical.encode(params, x, **TANH)
    np.testing.assert_allclose(lower.mean, mean_1, rtol=1e-12)
    np.testing.assert_array_equal(lower.mean_error, np.zeros([5, LOWER]))
    mean_2 = net(params["upper_encoder"], lower.z.numpy())[..., :UPPER]
    np.testing.assert_allclose(upper.mean, mean_2.mean(0), rtol=1e-9)
    error = mean_2.var(0, ddof=1) / 6
    np.testing.assert_allclose(upper.mean_error, error, rtol=1e-9)


def test_the_upper_layers_density_and_kl_are_the_priors(params, batch):
    prior = priors.Prior(
        init=None,
        log_prob=lambda params, z: 7.0 + z[..., 0],
        kl=lambda mean, log_var, log_ratio: (
            tf.reduce_sum(mean + log_var, axis=-1, keepdims=True) + log_ratio[..., None]
        ),
        exact_kl=False,
        sample=None,
        noise_size=0,
    )
    lower, upper = hierarchical.infer(params, *batch, **TANH, prior=prior).latents
    np.testing.assert_array_equal(upper.log_prior, 7.0 + upper.z[..., 0])
    q_2 = net(params["upper_encoder"], lower.z.numpy())
    ratio = upper.log_posterior - upper.log_prior
    expected = np.mean(q_2.sum(-1) + ratio, axis=0)[:, None]
    np.testing.assert_allclose(upper.kl, expected, rtol=1e-9)


def test_a_draw_goes_from_the_top_down(params):
    noise = np.random.default_rng(0).standard_normal([6, LOWER + UPPER])
    mean, log_var = np.split(net(params["upper_decoder"], noise[:, LOWER:]), 2, axis=-1)
    z_1 = mean + np.exp(log_var / 2) * noise[:, :LOWER]
    expected = net(params["decoder"], z_1)
    found = hierarchical.sample(params, tf.constant(noise), **TANH_AND_PRIOR)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(
        hierarchical.decode(params, tf.constant(z_1), **TANH), expected, rtol=1e-10
    )


def test_a_draw_begins_at_the_prior(params):
    """Which may need more noise than it has dimensions."""
    prior = priors.Prior(
        init=None,
        log_prob=None,
        kl=None,
        exact_kl=False,
        sample=lambda params, noise: noise[..., :UPPER] + noise[..., UPPER:],
        noise_size=UPPER + 1,
    )
    noise = np.random.default_rng(0).standard_normal([6, LOWER + UPPER + 1])
    found = hierarchical.sample(params, tf.constant(noise), **TANH, prior=prior)
    summed = np.concatenate([noise[:, :LOWER], noise[:, LOWER:-1] + noise[:, -1:]], 1)
    expected = hierarchical.sample(params, tf.constant(summed), **TANH_AND_PRIOR)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_labels_reach_every_network():
    model = settings.Model(
        hidden_sizes=(8,), upper_hidden_sizes=(6,), conditional=True, **TWO
    )
    params = hierarchical.init(model, PRIOR, 0)
    inputs = {name: layers["dense_0"]["w"].shape[0] for name, layers in params.items()}
    assert inputs == dict(
        encoder=794, decoder=LOWER + 10, upper_encoder=LOWER + 10, upper_decoder=13
    )
    noise, y = tf.zeros([2, LOWER + UPPER]), tf.one_hot([1, 7], 10)
    logits = hierarchical.sample(params, noise, y, **TANH_AND_PRIOR)
    assert not np.allclose(logits[0], logits[1])
    logits = hierarchical.decode(params, noise[:, :LOWER], y, **TANH)
    assert not np.allclose(logits[0], logits[1])
    mean, _ = hierarchical.lower_prior(params, noise[:, LOWER:], y, **TANH)
    assert not np.allclose(mean[0], mean[1])
    x = tf.zeros([2, 784])
    mean, _ = hierarchical.encode(params, x, y, **TANH)
    assert not np.allclose(mean[0], mean[1])
    params["encoder"]["output"]["w"].assign(tf.zeros([8, 2 * LOWER]))
    lower, upper = hierarchical.infer(
        params, x, noise[None], y, **TANH_AND_PRIOR
    ).latents
    assert np.array_equal(lower.z[0, 0], lower.z[0, 1])
    assert not np.allclose(upper.mean[0], upper.mean[1])
