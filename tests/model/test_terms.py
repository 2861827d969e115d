import numpy as np
import pytest
import tensorflow as tf

from core.model import terms
from core.model.terms import Inference, Latent

K, B, D = 3, 2, 4


@pytest.fixture
def example():
    """(x [2, 784], an inference of K = 3 samples with layers of 4 and of 1 groups)."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return tf.constant(random.standard_normal(shape))

    latents = tuple(
        Latent(
            z=draw(K, B, D),
            mean=draw(B, D),
            mean_error=tf.zeros([B, D], tf.float64),
            log_posterior=draw(K, B),
            log_prior=draw(K, B),
            kl=draw(B, groups),
        )
        for groups in (D, 1)
    )
    x = random.integers(0, 2, [B, 784]).astype(float)
    return x, Inference(latents, draw(K, B, 784))


def test_the_log_likelihood_is_a_sum_over_pixels(example):
    x, inference = example
    p = 1 / (1 + np.exp(-inference.logits))
    expected = np.sum(np.log(np.where(x == 1, p, 1 - p)), axis=-1)
    found = terms.log_likelihood(inference, x)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_densities_and_kl_are_sums_over_layers(example):
    _, inference = example
    lower, upper = inference.latents
    found = terms.log_prior(inference)
    np.testing.assert_allclose(found, lower.log_prior + upper.log_prior, 1e-12)
    found = terms.log_posterior(inference)
    np.testing.assert_allclose(found, lower.log_posterior + upper.log_posterior, 1e-12)
    expected = lower.kl.numpy().sum(-1) + upper.kl.numpy()[:, 0]
    np.testing.assert_allclose(terms.kl(inference), expected, rtol=1e-12)
    one = inference._replace(latents=(lower,))
    np.testing.assert_allclose(terms.kl(one), lower.kl.numpy().sum(-1), rtol=1e-12)
    np.testing.assert_array_equal(terms.log_prior(one), lower.log_prior)
    np.testing.assert_array_equal(terms.log_posterior(one), lower.log_posterior)


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_importance_weights_are_joint_over_posterior(example, kl_weight):
    x, inference = example
    lower, upper = inference.latents
    log_p = lower.log_prior + upper.log_prior
    log_q = lower.log_posterior + upper.log_posterior
    expected = terms.log_likelihood(inference, x) + kl_weight * (log_p - log_q)
    found = terms.log_importance_weights(inference, x, kl_weight)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    if kl_weight == 1:
        found = terms.log_importance_weights(inference, x)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_normalized_weights_sum_to_one_over_the_samples(example):
    x, inference = example
    log_w = terms.log_importance_weights(inference, x).numpy()
    weights = np.exp(log_w - log_w.max(0))
    found = terms.normalized_weights(inference, x)
    np.testing.assert_allclose(found, weights / weights.sum(0), rtol=1e-8)
    np.testing.assert_allclose(tf.reduce_sum(found, axis=0), np.ones(B), rtol=1e-12)
