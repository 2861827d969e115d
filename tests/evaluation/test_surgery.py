import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.data.datasets import Split
from core.evaluation import bounds, surgery
from core.model import mixture
from core.model.build import build

COUNT = 60


def split_of(count=COUNT):
    """Images that are told apart by their first pixel."""
    pixels = np.zeros([count, 784], np.uint8)
    pixels[:, 0] = np.arange(count)
    return Split(tf.constant(pixels), tf.zeros([count], tf.uint8))


def model_of(mean_of, log_var=0.0, **changes):
    """A model of two dimensions whose posterior of image number n has the mean
    (mean_of(n), 0)."""

    def encode(weights, x, y=None):
        mean = mean_of(tf.round(255 * x[:, 0]))
        mean = tf.stack([mean, tf.zeros_like(mean)], axis=1)
        return mean, tf.fill(tf.shape(mean), log_var)

    return build(settings.Model(hidden_sizes=(8,)))._replace(encode=encode, **changes)


def split_rate(model, weights=None, jit=False):
    return surgery.split_rate(model, weights, split_of(), 5, jit)


CASES = {
    "one posterior for all": (lambda n: 0 * n + 3, 0.0),
    "a posterior for each": (lambda n: 100 * n, np.log(COUNT)),
    "two posteriors": (lambda n: 100 * (n % 2), np.log(2)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_information_is_what_the_posteriors_tell_apart(case):
    mean_of, expected = CASES[case]
    information, _ = split_rate(model_of(mean_of))
    assert information == pytest.approx(expected, abs=2e-4)


def test_xla_finds_the_same():
    model = model_of(lambda n: n / 9)
    assert split_rate(model, jit=True) == pytest.approx(split_rate(model), abs=1e-5)


def test_where_all_posteriors_are_one_the_rate_is_the_distance_from_the_prior():
    """KL(N(3, 4) || N(0, 1)) and KL(N(0, 4) || N(0, 1)), by 60 samples."""
    _, found = split_rate(model_of(lambda n: 0 * n + 3, float(np.log(4))))
    assert found == pytest.approx(4.5 + 2 * (1.5 - np.log(2)), abs=2.5)
    _, found = split_rate(model_of(lambda n: 0 * n))
    assert found == pytest.approx(0, abs=1e-4)  # they are the prior


def test_a_learned_prior_that_is_the_aggregate_is_at_no_distance():
    model = model_of(lambda n: 100 * n)
    prior = build(settings.Model(hidden_sizes=(8,), prior="mixture")).prior
    mean, log_var = bounds.posteriors(model, None, split_of())
    weights = {"prior": {"logits": tf.zeros(COUNT), "mean": mean, "log_var": log_var}}
    found = split_rate(model._replace(prior=prior), weights)
    assert found == pytest.approx((np.log(COUNT), 0), abs=2e-4)


def test_the_parts_are_those_of_the_rate(digits):
    """Of a model whose encoder is its own, on images in chunks of another size."""
    model = build(settings.Model(hidden_sizes=(8,)))
    weights = model.init(0, 0.13)
    split = Split(tf.reshape(digits[0].images, [-1, 784]) >= 128, digits[0].labels)
    information, marginal_kl = surgery.split_rate(model, weights, split, 0, False)
    rate = bounds.evaluate(model, weights, split, "test", 0).rate
    assert information + marginal_kl == pytest.approx(rate, abs=0.1)
    assert 0 < information < np.log(len(digits[0].images))


def test_it_does_not_depend_on_how_many_are_in_memory(monkeypatch):
    model, compared, log_prob = model_of(lambda n: n / 9), [], mixture.log_prob
    whole = split_rate(model)

    def watched(z, *rest):
        compared.append(z.shape[0])
        return log_prob(z, *rest)

    monkeypatch.setattr(mixture, "log_prob", watched)
    monkeypatch.setattr(surgery, "NUMBERS", 7 * 2 * COUNT + 5)
    assert split_rate(model) == pytest.approx(whole, abs=1e-5)
    assert set(compared) == {7, COUNT % 7}


def test_two_layers_are_not_split():
    assert split_rate(model_of(lambda n: n, latent_dims=(2, 2))) is None
