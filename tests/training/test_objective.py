import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.model import terms
from core.model.terms import Inference, Latent
from core.training import objective

K, B, D = 3, 2, 4
ELBO = settings.Objective()
STL = settings.Objective(estimator="stl")
IWAE = settings.Objective(objective="iwae")
DREG = settings.Objective(objective="iwae", estimator="dreg")


def log_normal(z, mean, log_var):
    density = -0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))
    return density.sum(axis=-1)


@pytest.fixture
def example():
    """(x [2, 784], an inference with K = 3 samples and D = 4 dimensions)."""
    random = np.random.default_rng(0)
    mean, log_var = random.standard_normal([2, B, D])
    z = random.standard_normal([K, B, D])
    latent = Latent(
        z=tf.constant(z),
        mean=tf.constant(mean),
        mean_error=tf.zeros([B, D], tf.float64),
        log_posterior=tf.constant(log_normal(z, mean, log_var)),
        log_prior=tf.constant(log_normal(z, 0.0, 0.0)),
        kl=tf.constant((mean**2 + np.exp(log_var) - 1 - log_var) / 2),
    )
    x = random.integers(0, 2, [B, 784]).astype(float)
    logits = tf.constant(random.standard_normal([K, B, 784]))
    return x, Inference((latent,), logits)


@pytest.fixture
def log_w(example):
    """The example's log importance weights [K, B], by NumPy."""
    x, inference = example
    (latent,) = inference.latents
    log_w = np.sum(x * inference.logits - np.logaddexp(0, inference.logits), axis=-1)
    return log_w + latent.log_prior.numpy() - latent.log_posterior.numpy()


def test_the_plain_loss_is_distortion_plus_rate_averaged_once(example):
    x, inference = example
    losses = objective.losses(inference, x, ELBO)
    logits = inference.logits.numpy()
    distortion = -np.mean(np.sum(x * logits - np.logaddexp(0, logits), axis=-1))
    rate = np.mean(inference.latents[0].kl.numpy().sum(-1))
    np.testing.assert_allclose(losses, [distortion + rate, distortion, rate], 1e-12)


def test_the_rate_sums_over_layers(example):
    x, inference = example
    twice = inference._replace(latents=inference.latents * 2)
    rates = [objective.losses(each, x, ELBO).rate for each in (inference, twice)]
    assert float(rates[1]) == pytest.approx(2 * float(rates[0]), rel=1e-12)


@pytest.mark.parametrize(
    ("loss_settings", "kl_weight"),
    [
        (ELBO, 0.3),
        (settings.Objective(free_bits=0.7), 1.0),
        (STL, 1.0),
        (IWAE, 1.0),
        (DREG, 1.0),
    ],
    ids=["beta", "free bits", "stl", "iwae", "dreg"],
)
def test_what_is_reported_as_an_elbo_is_the_elbo(example, loss_settings, kl_weight):
    x, inference = example
    plain = objective.losses(inference, x, ELBO)
    found = objective.losses(inference, x, loss_settings, kl_weight)
    assert found[1:] == plain[1:]
    assert float(found.loss) != pytest.approx(float(plain.loss), rel=1e-6)


def test_the_kl_has_a_weight(example, log_w):
    x, inference = example
    loss, distortion, rate = objective.losses(inference, x, ELBO, 0.3)
    assert float(loss) == pytest.approx(float(distortion + 0.3 * rate))
    log_likelihood = terms.log_likelihood(inference, x).numpy()
    log_ratio = log_w - log_likelihood
    loss = objective.losses(inference, x, STL, 0.3).loss
    assert float(loss) == pytest.approx(-np.mean(log_likelihood + 0.3 * log_ratio))


def test_the_kl_has_its_weight_in_every_importance_weight(example, log_w):
    """The IWAE bound under a warm-up: log p(x|z) + weight (log p(z) - log q(z|x))."""
    x, inference = example
    log_likelihood = terms.log_likelihood(inference, x).numpy()
    weighted = log_likelihood + 0.3 * (log_w - log_likelihood)
    found = terms.log_importance_weights(inference, x, 0.3)
    np.testing.assert_allclose(found, weighted, rtol=1e-12)
    loss = objective.losses(inference, x, IWAE, 0.3).loss
    expected = -np.mean(np.log(np.mean(np.exp(weighted), axis=0)))
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    unweighted = objective.losses(inference, x, IWAE).loss
    assert float(unweighted) != pytest.approx(expected, rel=1e-6)


def test_the_weight_in_force_is_the_argument_and_not_beta(example):
    """Which differs from beta during warm-up."""
    x, inference = example
    beta = settings.Objective(beta=7.0)
    found = objective.losses(inference, x, beta, 0.3)
    assert found == objective.losses(inference, x, ELBO, 0.3)


def test_free_bits_are_a_floor_under_the_batch_mean_of_each_dimension(example):
    x, inference = example
    floored = settings.Objective(free_bits=0.7)
    loss, distortion, _ = objective.losses(inference, x, floored, 2)
    means = np.mean(inference.latents[0].kl, axis=0)
    assert means.min() < 0.7 < means.max()
    expected = np.sum(np.maximum(means, 0.7))
    assert float(loss - distortion) == pytest.approx(2 * expected)


def test_free_bits_are_a_floor_under_each_group_of_every_layer(example):
    """A layer whose prior does not factorize has one group."""
    _, inference = example
    (latent,) = inference.latents
    whole = latent._replace(kl=tf.constant([[0.1], [0.5]], tf.float64))
    both = inference._replace(latents=(latent, whole))
    means = np.append(np.mean(latent.kl, axis=0), 0.3)
    for floor in (0.2, 0.7):
        expected = np.sum(np.maximum(means, floor))
        found = objective.floored_rate(both, floor)
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_the_iwae_bound_is_the_log_mean_exp_of_the_weights(example, log_w):
    x, inference = example
    for loss_settings in (IWAE, DREG):
        loss = objective.losses(inference, x, loss_settings).loss
        assert float(loss) == pytest.approx(-np.mean(np.log(np.mean(np.exp(log_w), 0))))
    loss = objective.losses(inference, x, STL).loss
    assert float(loss) == pytest.approx(-np.mean(log_w))


def test_one_sample_makes_the_iwae_bound_the_elbos_estimate(example, log_w):
    x, inference = example
    (latent,) = inference.latents
    first = latent._replace(
        z=latent.z[:1],
        log_posterior=latent.log_posterior[:1],
        log_prior=latent.log_prior[:1],
    )
    one = Inference((first,), inference.logits[:1])
    loss = objective.losses(one, x, IWAE).loss
    assert float(loss) == pytest.approx(-np.mean(log_w[0]))
