import numpy as np
import pytest
import tensorflow as tf

from core import objective
from core.vae import Inference, Latent

K, B, D = 3, 2, 4


def log_normal(z, mean, log_var):
    density = -0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))
    return density.sum(axis=-1)


@pytest.fixture
def example():
    """(x [2, 784], an inference with K = 3 samples and D = 4 dimensions)."""
    random = np.random.default_rng(0)
    zero = tf.constant(0.0, tf.float64)
    mean, log_var = tf.constant(random.standard_normal([2, B, D]))
    z = tf.constant(random.standard_normal([K, B, D]))
    x = random.integers(0, 2, [B, 784]).astype(float)
    logits = tf.constant(random.standard_normal([K, B, 784]))
    return x, Inference((Latent(z, mean, log_var, zero, zero),), logits)


@pytest.fixture
def log_w(example):
    """The example's log importance weights [K, B], by NumPy."""
    x, inference = example
    (latent,) = inference.latents
    log_w = np.sum(x * inference.logits - np.logaddexp(0, inference.logits), axis=-1)
    log_w += log_normal(latent.z.numpy(), 0.0, 0.0)
    mean, log_var = latent.posterior_mean.numpy(), latent.posterior_log_var.numpy()
    return log_w - log_normal(latent.z.numpy(), mean, log_var)


def test_terms_are_sums_over_pixels_and_dimensions(example):
    x, inference = example
    p = 1 / (1 + np.exp(-inference.logits))
    expected = -np.sum(np.log(np.where(x == 1, p, 1 - p)), axis=-1)
    found = objective.log_likelihood(inference, x)
    np.testing.assert_allclose(-found, expected, rtol=1e-10)
    (latent,) = inference.latents
    mean, log_var = latent.posterior_mean.numpy(), latent.posterior_log_var.numpy()
    kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var)
    np.testing.assert_allclose(objective.kl_per_dim(inference)[0], kl, rtol=1e-10)
    np.testing.assert_allclose(objective.kl(inference), kl.sum(-1), rtol=1e-10)


def test_the_rate_sums_over_layers(example):
    x, inference = example
    twice = inference._replace(latents=inference.latents * 2)
    np.testing.assert_allclose(objective.kl(twice), 2 * objective.kl(inference))


def test_importance_weights_are_joint_over_posterior(example, log_w):
    x, inference = example
    found = objective.log_importance_weights(inference, x)
    np.testing.assert_allclose(found, log_w, rtol=1e-12)
    weights = np.exp(log_w - log_w.max(0))
    found = objective.normalized_weights(inference, x)
    np.testing.assert_allclose(found, weights / weights.sum(0), rtol=1e-8)


# --- What is minimized ----------------------------------------------------------------


def test_the_plain_loss_is_distortion_plus_rate_averaged_once(example):
    x, inference = example
    losses = objective.losses(inference, x)
    distortion = -np.mean(objective.log_likelihood(inference, x))
    rate = np.mean(objective.kl(inference))
    np.testing.assert_allclose(losses, [distortion + rate, distortion, rate], 1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        dict(kl_weight=0.3),
        dict(free_bits=0.7),
        dict(estimator="stl"),
        dict(objective="iwae"),
        dict(objective="iwae", estimator="dreg"),
    ],
)
def test_what_is_reported_as_an_elbo_is_the_elbo(example, settings):
    x, inference = example
    plain = objective.losses(inference, x)
    found = objective.losses(inference, x, **settings)
    assert found[1:] == plain[1:]
    assert float(found.loss) != pytest.approx(float(plain.loss), rel=1e-6)


def test_the_kl_has_a_weight(example):
    x, inference = example
    loss, distortion, rate = objective.losses(inference, x, kl_weight=0.3)
    assert float(loss) == pytest.approx(float(distortion + 0.3 * rate))


def test_free_bits_are_a_floor_under_the_batch_mean_of_each_dimension(example):
    x, inference = example
    loss, distortion, _ = objective.losses(inference, x, kl_weight=2, free_bits=0.7)
    means = np.mean(objective.kl_per_dim(inference)[0], axis=0)
    assert means.min() < 0.7 < means.max()
    expected = np.sum(np.maximum(means, 0.7))
    assert float(loss - distortion) == pytest.approx(2 * expected)


def test_the_iwae_bound_is_the_log_mean_exp_of_the_weights(example, log_w):
    x, inference = example
    loss = objective.losses(inference, x, objective="iwae").loss
    assert float(loss) == pytest.approx(-np.mean(np.log(np.mean(np.exp(log_w), 0))))
    loss = objective.losses(inference, x, estimator="stl").loss
    assert float(loss) == pytest.approx(-np.mean(log_w))


def test_one_sample_makes_the_iwae_bound_the_elbos_estimate(example, log_w):
    x, inference = example
    (latent,) = inference.latents
    one = Inference((latent._replace(z=latent.z[:1]),), inference.logits[:1])
    loss = objective.losses(one, x, objective="iwae").loss
    assert float(loss) == pytest.approx(-np.mean(log_w[0]))


def test_warm_up_rises_in_a_straight_line_to_beta():
    def weights(*arguments):
        steps = (0, 25, 50, 100, 170)
        return [
            float(objective.kl_weight_at(tf.constant(s), *arguments)) for s in steps
        ]

    assert weights(3.0, 100) == pytest.approx([0, 0.75, 1.5, 3, 3])
    assert weights(0.5, 0) == [0.5] * 5
