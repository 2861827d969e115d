import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.model import priors, terms, vae

TANH = dict(activation=tf.tanh)
PRIOR = priors.standard(3)
TANH_AND_PRIOR = dict(activation=tf.tanh, prior=PRIOR)
DENSE = settings.Model(hidden_sizes=(16, 8), latent_dim=3)
CONV = settings.Model(architecture="conv", filters=(4, 6), latent_dim=3)


@pytest.fixture
def params():
    return vae.init(DENSE, PRIOR, 0, 0.13, tf.float64)


def log_normal(z, mean, log_var):
    density = -0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))
    return density.sum(axis=-1)


def test_the_decoder_mirrors_the_encoder(params):
    def shapes(net):
        return [tuple(params[net][layer]["w"].shape) for layer in params[net]]

    assert shapes("encoder") == [(784, 16), (16, 8), (8, 6)]
    assert shapes("decoder") == [(3, 8), (8, 16), (16, 784)]
    assert {p.dtype for p in tf.nest.flatten(params)} == {tf.float64}


def test_inference_has_the_axes_samples_images_dimensions(params):
    x, noise = tf.zeros([5, 784], tf.float64), tf.ones([4, 5, 3], tf.float64)
    (latent,), logits = vae.infer(params, x, noise, **TANH_AND_PRIOR)
    assert latent.z.shape == (4, 5, 3) and logits.shape == (4, 5, 784)
    assert latent.mean.shape == latent.mean_error.shape == latent.kl.shape == (5, 3)
    assert latent.log_posterior.shape == latent.log_prior.shape == (4, 5)
    mean, log_var = vae.encode(params, x, **TANH)
    expected = mean + np.exp(log_var / 2)
    np.testing.assert_allclose(latent.z[0], expected, rtol=1e-12)
    np.testing.assert_array_equal(
        logits, vae.sample(params, latent.z, **TANH_AND_PRIOR)
    )
    np.testing.assert_array_equal(logits, vae.decode(params, latent.z, **TANH))


def test_the_layer_states_its_densities_written_out(params):
    """log p(x|z) + log p(z) - log q(z|x), part by part; its mean is exact."""
    random = np.random.default_rng(0)
    x = random.integers(0, 2, [5, 784]).astype(float)
    noise = random.standard_normal([4, 5, 3])
    inference = vae.infer(params, tf.constant(x), tf.constant(noise), **TANH_AND_PRIOR)
    (latent,), logits = inference
    mean, log_var = (half.numpy() for half in vae.encode(params, x, **TANH))
    z = mean + np.exp(log_var / 2) * noise
    log_p, log_q = log_normal(z, 0.0, 0.0), log_normal(z, mean, log_var)
    np.testing.assert_allclose(latent.log_prior, log_p, rtol=1e-10)
    np.testing.assert_allclose(latent.log_posterior, log_q, rtol=1e-10)
    kl = (mean**2 + np.exp(log_var) - 1 - log_var) / 2
    np.testing.assert_allclose(latent.kl, kl, rtol=1e-9)
    np.testing.assert_array_equal(latent.mean, mean)
    np.testing.assert_array_equal(latent.mean_error, np.zeros([5, 3]))
    expected = np.sum(x * logits - np.logaddexp(0, logits), axis=-1) + log_p - log_q
    found = terms.log_importance_weights(inference, tf.constant(x))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_mean_and_log_variance_are_the_halves_of_one_output(params):
    x = np.random.default_rng(0).standard_normal([5, 784])
    outputs = x
    for name, layer in params["encoder"].items():
        outputs = outputs @ layer["w"].numpy() + layer["b"].numpy()
        outputs = outputs if name == "output" else np.tanh(outputs)
    mean, log_var = vae.encode(params, tf.constant(x), **TANH)
    np.testing.assert_allclose(mean, outputs[:, :3], rtol=1e-10)
    np.testing.assert_allclose(log_var, outputs[:, 3:], rtol=1e-10)


def test_one_row_of_noise_serves_all_images(params):
    """As evaluation draws it: [K, 1, D]."""
    random = np.random.default_rng(0)
    x = tf.constant(random.integers(0, 2, [5, 784]).astype(float))
    noise = tf.constant(random.standard_normal([4, 1, 3]))
    found = vae.infer(params, x, noise, **TANH_AND_PRIOR)
    expected = vae.infer(params, x, tf.repeat(noise, 5, axis=1), **TANH_AND_PRIOR)
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_prior_is_asked_for_its_density_its_kl_and_its_draws(params):
    """With the whole model's parameters, of which it may have some."""

    def shift(params):
        return params["encoder"]["output"]["b"][:3] + 1.0

    prior = priors.Prior(
        init=None,
        log_prob=lambda params, z: tf.reduce_sum(z - shift(params), axis=-1),
        kl=lambda mean, log_var, log_ratio: mean + log_var + log_ratio[..., None],
        exact_kl=False,
        sample=lambda params, noise: noise[..., :3] + shift(params),
        noise_size=4,
    )
    with_prior = dict(activation=tf.tanh, prior=prior)
    x, noise = tf.ones([5, 784], tf.float64), tf.ones([4, 5, 3], tf.float64)
    (latent,), _ = vae.infer(params, x, noise, **with_prior)
    expected = tf.reduce_sum(latent.z - 1.0, axis=-1)
    np.testing.assert_allclose(latent.log_prior, expected, rtol=1e-12)
    mean, log_var = vae.encode(params, x, **TANH)
    ratio = latent.log_posterior - latent.log_prior
    expected = mean + log_var + tf.reduce_mean(ratio, axis=0)[:, None]
    np.testing.assert_allclose(latent.kl, expected, rtol=1e-12)
    noise = tf.zeros([2, 4], tf.float64)
    np.testing.assert_array_equal(
        vae.sample(params, noise, **with_prior),
        vae.decode(params, tf.ones([2, 3], tf.float64), **TANH),
    )


def test_labels_reach_encoder_and_decoder():
    conditional = settings.Model(hidden_sizes=(16,), latent_dim=3, conditional=True)
    params = vae.init(conditional, PRIOR, 0)
    x, noise = tf.zeros([2, 784]), tf.zeros([1, 2, 3])
    y = tf.one_hot([4, 5], 10)
    (latent,), logits = vae.infer(params, x, noise, y, **TANH_AND_PRIOR)
    assert not np.allclose(latent.mean[0], latent.mean[1])
    a, b = (
        vae.decode(params, noise[0, :1], tf.one_hot([n], 10), **TANH) for n in (4, 5)
    )
    assert not np.allclose(a, b)
    draws = vae.sample(params, noise[0], y, **TANH_AND_PRIOR)
    np.testing.assert_allclose(draws, tf.concat([a, b], axis=0), rtol=1e-5, atol=1e-6)


def test_filters_make_the_model_convolutional():
    params = vae.init(CONV, PRIOR, 0, 0.2)
    x, noise = tf.zeros([5, 784]), tf.ones([2, 5, 3])
    (latent,), logits = vae.infer(params, x, noise, activation=tf.nn.relu, prior=PRIOR)
    assert latent.mean.shape == (5, 3) and logits.shape == (2, 5, 784)
    assert "conv_1" in params["encoder"] and "conv_1" in params["decoder"]


@pytest.mark.parametrize("model", [DENSE, CONV], ids=["dense", "conv"])
@pytest.mark.parametrize("mean_pixel", [0.13, 0.0, 1.0])
def test_training_starts_at_the_mean_pixel(mean_pixel, model):
    params = vae.init(model, PRIOR, 0, mean_pixel)
    z = tf.zeros([1, 3])
    logits = vae.sample(params, z, activation=tf.nn.relu, prior=PRIOR)
    expected = np.clip(mean_pixel, 0.001, 0.999)
    np.testing.assert_allclose(tf.sigmoid(logits), np.full([1, 784], expected), 1e-4)


def test_seeds_differ(params):
    other = vae.init(DENSE, PRIOR, 1, 0.13, tf.float64)
    for a, b in zip(tf.nest.flatten(params), tf.nest.flatten(other), strict=True):
        assert len(a.shape) == 1 or not np.array_equal(a, b)
