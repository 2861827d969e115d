import numpy as np
import pytest
import tensorflow as tf

from core.model import priors

D = 3


@pytest.fixture
def prior():
    return priors.standard(D)


def test_the_standard_prior_is_a_product_of_standard_normals(prior):
    z = np.random.default_rng(0).standard_normal([4, 2, D])
    expected = np.sum(-0.5 * z**2 - 0.5 * np.log(2 * np.pi), axis=-1)
    found = prior.log_prob({}, tf.constant(z))
    assert found.shape == (4, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_densities_have_the_type_of_the_samples(prior, dtype):
    z = tf.ones([4, 2, D], dtype)
    assert prior.log_prob({}, z).dtype == dtype
    assert prior.kl({}, z, z[0], z[0]).dtype == dtype
    assert prior.sample({}, z).dtype == dtype


@pytest.mark.parametrize("shape", [(2, D), (4, 2, D)], ids=["one layer", "two layers"])
def test_the_kl_is_in_closed_form_for_each_dimension(prior, shape):
    random = np.random.default_rng(0)
    mean, log_var = random.standard_normal([2, *shape])
    z = tf.constant(random.standard_normal([4, 2, D]))
    found = prior.kl({}, z, tf.constant(mean), tf.constant(log_var))
    expected = (mean**2 + np.exp(log_var) - 1 - log_var) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_kl_is_what_the_density_says_of_samples(prior):
    """The mean of log q - log p over samples of q, which `log_prob` gives."""
    random = np.random.default_rng(0)
    mean, log_var = random.standard_normal([2, 1, D])
    z = mean + np.exp(log_var / 2) * random.standard_normal([400_000, 1, D])
    log_q = -0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))
    ratio = log_q.sum(-1) - prior.log_prob({}, tf.constant(z))
    error = ratio.numpy().std() / np.sqrt(len(z))
    kl = prior.kl({}, tf.constant(z), tf.constant(mean), tf.constant(log_var))
    assert np.mean(ratio) == pytest.approx(np.sum(kl), abs=4 * error)


def test_a_draw_is_the_noise_itself(prior):
    noise = np.random.default_rng(0).standard_normal([5, prior.noise_size])
    assert prior.noise_size == D
    np.testing.assert_array_equal(prior.sample({}, tf.constant(noise)), noise)
