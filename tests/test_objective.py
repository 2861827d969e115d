import numpy as np
import pytest
import tensorflow as tf

from core import objective
from core.vae import Inference, Latent


@pytest.fixture
def example():
    """(x [2, 784], an inference with K = 3 samples and D = 4 dimensions)."""
    random = np.random.default_rng(0)
    zero = tf.constant(0.0, tf.float64)
    mean, log_var = random.standard_normal([2, 2, 4])
    latent = Latent(random.standard_normal([3, 2, 4]), *(mean, log_var, zero, zero))
    x = random.integers(0, 2, [2, 784]).astype(float)
    return x, Inference((latent,), tf.constant(random.standard_normal([3, 2, 784])))


def test_terms_are_sums_over_pixels_and_dimensions(example):
    x, inference = example
    p = 1 / (1 + np.exp(-inference.logits))
    expected = -np.sum(np.log(np.where(x == 1, p, 1 - p)), axis=-1)
    found = objective.log_likelihood(inference, x)
    np.testing.assert_allclose(-found, expected, rtol=1e-10)
    (latent,) = inference.latents
    mean, log_var = latent.posterior_mean, latent.posterior_log_var
    kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var)
    np.testing.assert_allclose(objective.kl_per_dim(inference)[0], kl, rtol=1e-10)
    np.testing.assert_allclose(objective.kl(inference), kl.sum(-1), rtol=1e-10)


def test_the_loss_is_distortion_plus_rate_averaged_once(example):
    x, inference = example
    losses = objective.negative_elbo(inference, x)
    distortion = -np.mean(objective.log_likelihood(inference, x))
    rate = np.mean(objective.kl(inference))
    np.testing.assert_allclose(losses, [distortion + rate, distortion, rate], 1e-12)


def test_the_rate_sums_over_layers(example):
    x, inference = example
    twice = inference._replace(latents=inference.latents * 2)
    np.testing.assert_allclose(objective.kl(twice), 2 * objective.kl(inference))
