import itertools

import numpy as np
import pytest
import tensorflow as tf

from core.model import distributions

MEANS = tf.constant([-3.0, 0.0, 0.2, 1.5, 4.0], tf.float64)
ZERO = tf.constant(0.0, tf.float64)
LOG_VARS = tf.constant([-4.0, 0.0, 1.0, -0.5, 2.0], tf.float64)


def gaussian_log_prob(z, mean, log_var):
    variance = np.exp(log_var)
    return -0.5 * (np.log(2 * np.pi * variance) + (z - mean) ** 2 / variance)


def test_samples_have_the_mean_and_the_variance():
    noise = np.random.default_rng(0).standard_normal([200_000, 5])
    z = distributions.gaussian_sample(MEANS, LOG_VARS, noise).numpy()
    np.testing.assert_allclose(z.mean(0), MEANS, atol=0.03)
    np.testing.assert_allclose(z.var(0), np.exp(LOG_VARS), rtol=0.02)


def test_kl_agrees_with_monte_carlo():
    noise = np.random.default_rng(0).standard_normal([400_000, 5])
    z = distributions.gaussian_sample(MEANS, LOG_VARS, noise).numpy()
    ratio = gaussian_log_prob(z, MEANS.numpy(), LOG_VARS.numpy()) - gaussian_log_prob(
        z, 0, 0
    )
    kl = distributions.gaussian_kl(MEANS, LOG_VARS)
    error = np.abs(ratio.mean(0) - kl) / (ratio.std(0) / np.sqrt(len(z)) + 1e-12)
    assert error.max() < 4


def test_kl_is_zero_at_the_prior_and_positive_elsewhere():
    assert distributions.gaussian_kl(ZERO, ZERO) == 0
    tiny = tf.constant([1e-3, -1e-3, 1e-4], tf.float32)
    assert np.all(distributions.gaussian_kl(0.0, tiny).numpy() >= 0)


def test_kl_gradient_is_the_formula_by_hand():
    with tf.GradientTape() as tape:
        tape.watch([MEANS, LOG_VARS])
        kl = distributions.gaussian_kl(MEANS, LOG_VARS)
    by_mean, by_log_var = tape.gradient(kl, [MEANS, LOG_VARS])
    np.testing.assert_allclose(by_mean, MEANS, rtol=1e-12)
    np.testing.assert_allclose(by_log_var, (np.exp(LOG_VARS) - 1) / 2, rtol=1e-12)


def test_densities_agree_with_their_formula_and_their_kl():
    """log q - log p is what the KL averages; at the mean the density is its peak."""
    z = np.random.default_rng(0).standard_normal([7, 5])
    found = distributions.gaussian_log_prob(z, MEANS, LOG_VARS)
    expected = gaussian_log_prob(z, MEANS.numpy(), LOG_VARS.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    grid = np.linspace(-60, 60, 100_001)[:, None]
    total = np.exp(distributions.gaussian_log_prob(grid, MEANS, LOG_VARS)).sum(0)
    np.testing.assert_allclose(total * 120 / 100_000, 1, rtol=1e-9)


def test_bernoulli_sums_to_one_over_all_images_of_a_grid():
    logits = tf.tile(tf.constant([[-2.0, 0.0, 0.7, 5.0]], tf.float64), [16, 1])
    images = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
    log_probs = distributions.bernoulli_log_likelihood(images, logits).numpy()
    assert log_probs.shape == (16,)
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_bernoulli_is_exact_at_extreme_logits(dtype, jit):
    """Pixel by pixel, to the rounding of a number near 1."""
    logits = tf.constant([[-1e4], [-50], [-1e-3], [0], [1e-3], [50], [1e4]], dtype)

    @tf.function(jit_compile=jit)
    def value_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            log_prob = distributions.bernoulli_log_likelihood(x, logits)
        return log_prob, tape.gradient(log_prob, logits)

    exact = logits.numpy().astype(np.longdouble)
    for x in (0.0, 0.25, 1.0):
        log_prob, gradient = value_and_gradient(tf.constant([x], dtype))
        expected = x * exact - np.logaddexp(0, exact)
        tolerance = 4 * np.finfo(dtype.as_numpy_dtype).eps
        np.testing.assert_allclose(log_prob, expected[:, 0], tolerance, tolerance)
        sigmoid = np.exp(-np.logaddexp(0, -exact))
        np.testing.assert_allclose(gradient, x - sigmoid, tolerance, tolerance)


def test_bernoulli_agrees_with_tensorflow():
    logits = tf.random.stateless_normal([3, 2, 784], [1, 2], stddev=5.0)
    x = tf.random.stateless_uniform([2, 784], [3, 4])
    by_pixel = -tf.nn.sigmoid_cross_entropy_with_logits(x + 0 * logits, logits)
    found = distributions.bernoulli_log_likelihood(x, logits)
    np.testing.assert_allclose(found, tf.reduce_sum(by_pixel, -1), rtol=1e-5)


@pytest.mark.parametrize("scale", [0.1, 5, 1e4])
def test_without_a_gradient_the_density_is_the_same(scale):
    shape = [3, 2, 784]
    logits = scale * tf.random.stateless_normal(shape, [1, 2], dtype=tf.float64)
    x = tf.random.stateless_uniform([2, 784], [3, 4], dtype=tf.float64)
    expected = distributions.bernoulli_log_likelihood(x, logits)
    found = distributions.bernoulli_log_likelihood_alone(x, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    single = tf.cast(x, tf.float32), tf.cast(logits, tf.float32)
    found = distributions.bernoulli_log_likelihood_alone(*single)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_log_mean_exp_does_not_overflow():
    x = np.array([[0.0, 1000.0, -1e4], [np.log(3), 1000.0, -1e4]])
    expected = [np.log(2), 1000, -1e4]
    np.testing.assert_allclose(distributions.log_mean_exp(x), expected, rtol=1e-12)


def test_no_log_variance_overflows():
    """Of a rare image a network can give any number; others keep theirs, to the bit."""
    outputs = tf.constant([[1.0, -2.0, -3.5, 9.5], [0.0, 5.0, 1e4, 400.0]])
    mean, log_var = distributions.gaussian_parameters(outputs)
    np.testing.assert_array_equal(mean, [[1.0, -2.0], [0.0, 5.0]])
    bound = distributions.MAX_LOG_VAR
    np.testing.assert_array_equal(log_var, [[-3.5, 9.5], [bound, bound]])
    assert np.all(np.isfinite(distributions.gaussian_kl(mean, log_var)))
