import numpy as np
import pytest
import tensorflow as tf

from core import vae


@pytest.fixture
def params():
    return vae.init(0, (16, 8), 3, 0.13, tf.float64)


def test_the_decoder_mirrors_the_encoder(params):
    def shapes(net):
        return [tuple(params[net][layer]["w"].shape) for layer in params[net]]

    assert shapes("encoder") == [(784, 16), (16, 8), (8, 6)]
    assert shapes("decoder") == [(3, 8), (8, 16), (16, 784)]


def test_inference_has_the_axes_samples_images_dimensions(params):
    x, noise = tf.zeros([5, 784], tf.float64), tf.ones([4, 5, 3], tf.float64)
    (latent,), logits = vae.infer(params, x, noise, tf.tanh)
    assert latent.z.shape == (4, 5, 3) and logits.shape == (4, 5, 784)
    assert latent.posterior_mean.shape == latent.posterior_log_var.shape == (5, 3)
    expected = latent.posterior_mean + np.exp(latent.posterior_log_var / 2)
    np.testing.assert_allclose(latent.z[0], expected, rtol=1e-12)
    np.testing.assert_array_equal(logits, vae.generate(params, latent.z, tf.tanh))


def test_labels_reach_encoder_and_decoder():
    params = vae.init(0, (16,), 3, classes=10)
    x, noise = tf.zeros([2, 784]), tf.zeros([1, 2, 3])
    (latent,), logits = vae.infer(params, x, noise, tf.tanh, tf.one_hot([4, 5], 10))
    assert not np.allclose(latent.posterior_mean[0], latent.posterior_mean[1])
    a, b = (
        vae.decode(params, noise[0, :1], tf.tanh, tf.one_hot([n], 10)) for n in (4, 5)
    )
    assert not np.allclose(a, b)


def test_filters_make_the_model_convolutional():
    params = vae.init(0, (), 3, 0.2, filters=(4, 6))
    x, noise = tf.zeros([5, 784]), tf.ones([2, 5, 3])
    (latent,), logits = vae.infer(params, x, noise, tf.nn.relu)
    assert latent.posterior_mean.shape == (5, 3) and logits.shape == (2, 5, 784)


@pytest.mark.parametrize("filters", [(), (4, 6)])
@pytest.mark.parametrize("mean_pixel", [0.13, 0.0, 1.0])
def test_training_starts_at_the_mean_pixel(mean_pixel, filters):
    params = vae.init(0, (16,), 2, mean_pixel, filters=filters)
    logits = vae.generate(params, tf.zeros([1, 2]), tf.nn.relu)
    expected = np.clip(mean_pixel, 0.001, 0.999)
    np.testing.assert_allclose(tf.sigmoid(logits), np.full([1, 784], expected), 1e-4)


def test_seeds_differ(params):
    other = vae.init(1, (16, 8), 3, 0.13, tf.float64)
    for a, b in zip(tf.nest.flatten(params), tf.nest.flatten(other), strict=True):
        assert len(a.shape) == 1 or not np.array_equal(a, b)
