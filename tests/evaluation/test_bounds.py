import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from core import numerics, rng
from core.data import batches, binarization
from core.data.datasets import Split
from core.evaluation import bounds
from core.model import terms
from core.model.build import build
from core.settings import Model

ONE = Model(hidden_sizes=(16,), latent_dim=3, activation="tanh")
TWO = Model(
    hidden_sizes=(16,),
    stochastic_layers=2,
    latent_dims=(4, 3),
    upper_hidden_sizes=(8,),
    activation="tanh",
)


@pytest.fixture
def split(digits):
    """60 binarized images with their labels."""
    pixels = binarization.fixed_pixels(
        batches.flatten(digits[1].images), "static", 0, 1
    )
    return Split(pixels, tf.constant(digits[1].labels))


def first(split, count):
    return Split(split.pixels[:count], split.labels[:count])


def new(settings):
    """(model, params) of `settings.Model`."""
    model = build(settings)
    return model, model.init(0, 0.13)


def float64(params):
    return tf.nest.map_structure(lambda p: p.numpy().astype(np.float64), params)


def net(layers, x):
    hidden = np.tanh(x @ layers["dense_0"]["w"] + layers["dense_0"]["b"])
    return hidden @ layers["output"]["w"] + layers["output"]["b"]


@pytest.mark.parametrize("chunk", [1000, 16])
def test_evaluation_agrees_with_numpy_in_float64(split, monkeypatch, chunk):
    """In one chunk that is not full, and in four, each with noise of its own."""
    monkeypatch.setattr(numerics, "CHUNK", chunk)
    model, params = new(ONE)
    weights, x = float64(params), split.pixels.numpy().astype(np.float64)
    mean, log_var = np.split(net(weights["encoder"], x), 2, axis=1)
    key = rng.key(0, rng.Stream.EVALUATE, 3)
    chunks = [rng.normal(rng.fold(key, i), [1, chunk, 3])[0] for i in range(4)]
    noise = np.concatenate(chunks)[:60]
    logits = net(weights["decoder"], mean + np.exp(log_var / 2) * noise)
    distortion = np.mean(np.sum(np.logaddexp(0, logits) - x * logits, axis=1))
    kl = np.mean((mean**2 + np.exp(log_var) - 1 - log_var) / 2, axis=0)
    found = bounds.evaluate(model, params, split, "test", 0)
    expected = [distortion + kl.sum(), distortion, kl.sum()]
    np.testing.assert_allclose(found[:3], expected, rtol=1e-6)
    np.testing.assert_allclose(found.kl_per_dim[0], kl, rtol=1e-4)
    np.testing.assert_allclose(found.z_mean, mean, atol=1e-5)
    np.testing.assert_allclose(bounds.encode(model, params, split), mean, atol=1e-5)


def test_own_images_are_seen_through_ten_draws_of_the_same_noise(split, monkeypatch):
    """Each image, in each chunk."""
    monkeypatch.setattr(numerics, "CHUNK", 160)
    model, params = new(ONE)
    weights, x = float64(params), split.pixels.numpy().astype(np.float64)
    mean, log_var = np.split(net(weights["encoder"], x), 2, axis=1)
    key = rng.fold(rng.key(5, rng.Stream.EVALUATE, 7), 0)
    noise = rng.normal(key, [10, 1, 3]).numpy()
    logits = net(weights["decoder"], mean + np.exp(log_var / 2) * noise)
    distortion = np.sum(np.logaddexp(0, logits) - x * logits, axis=2).mean(axis=0)
    found = bounds.evaluate(model, params, split, "own", 5)
    np.testing.assert_allclose(found.images["distortion"], distortion, rtol=1e-5)


def test_the_noise_is_of_the_seed_and_the_split(split):
    model, params = new(ONE)

    def evaluate(seed=0, kind="test"):
        return bounds.evaluate(model, params, split, kind, seed)

    assert evaluate()[:4] == evaluate()[:4]
    assert evaluate().distortion != evaluate(seed=1).distortion
    assert evaluate().distortion != evaluate(kind="validation").distortion


def test_the_first_images_get_the_same_numbers_whether_more_are_evaluated(
    split, monkeypatch
):
    """The likelihood of each by itself, in chunks of which the last is not full."""
    monkeypatch.setattr(numerics, "CHUNK", 16)
    seen, evaluate_chunk = [], bounds.evaluate_chunk

    def watched(*arguments):
        seen.append(evaluate_chunk(*arguments))
        return seen[-1]

    monkeypatch.setattr(bounds, "evaluate_chunk", watched)
    model, params = new(ONE)
    log_likelihoods = []
    for count in (60, 21):
        seen.clear()
        bounds.evaluate(model, params, first(split, count), "test", 0)
        log_likelihoods.append(np.concatenate([chunk[0] for chunk in seen]))
    assert [len(found) for found in log_likelihoods] == [60, 21]
    np.testing.assert_allclose(*(found[:21] for found in log_likelihoods), rtol=1e-6)


@pytest.mark.parametrize("settings", [ONE, TWO], ids=["one layer", "two layers"])
def test_a_conditional_model_is_given_the_labels(split, settings):
    model, params = new(dataclasses.replace(settings, conditional=True))
    others = split._replace(labels=(split.labels + 1) % 10)
    found, other = (
        bounds.evaluate(model, params, each, "test", 0) for each in (split, others)
    )
    assert found.distortion != other.distortion and found.rate != other.rate
    for each, its in ((split, found), (others, other)):
        np.testing.assert_allclose(
            bounds.encode(model, params, each), its.z_mean, rtol=1e-5, atol=1e-6
        )
    without, its_params = new(ONE)
    same = [
        bounds.evaluate(without, its_params, each, "test", 0).distortion
        for each in (split, others)
    ]
    assert same[0] == same[1]


def test_active_units_are_those_whose_mean_varies():
    spread = np.sqrt([0.0099, 0.0101, 0.0101, 1.0, 0.0])
    signs = np.tile([[1.0], [-1.0]], [50, 1])
    error = np.tile([0.0, 0.0, 0.0002, 0.0, 0.0], [100, 1])
    assert bounds.active_units(5 + signs * spread, error) == 2


def gaussian_log_prob(z, mean, log_var):
    return -((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi)) / 2


def test_evaluation_of_two_layers_agrees_with_numpy_in_float64(split, monkeypatch):
    """Ten samples an image; the lower layer's KL is estimated by them."""
    monkeypatch.setattr(bounds, "ACTIVE_VARIANCE", 0.12)  # which some units pass
    model = build(TWO)
    params = model.init(0)
    found = bounds.evaluate(model, params, split, "test", 0)
    weights, x = float64(params), split.pixels.numpy().astype(np.float64)
    key = rng.fold(rng.key(0, rng.Stream.EVALUATE, 3), 0)
    noise = rng.normal(key, [10, 100, 7]).numpy()[:, :60].astype(np.float64)
    q_1 = mean_1, log_var_1 = np.split(net(weights["encoder"], x), 2, axis=-1)
    z_1 = mean_1 + np.exp(log_var_1 / 2) * noise[..., :4]
    mean_2, log_var_2 = np.split(net(weights["upper_encoder"], z_1), 2, axis=-1)
    z_2 = mean_2 + np.exp(log_var_2 / 2) * noise[..., 4:]
    p_1 = np.split(net(weights["upper_decoder"], z_2), 2, axis=-1)
    logits = net(weights["decoder"], z_1)
    distortion = np.mean(np.sum(np.logaddexp(0, logits) - x * logits, axis=-1))
    kl_1 = gaussian_log_prob(z_1, *q_1) - gaussian_log_prob(z_1, *p_1)
    kl_2 = (mean_2**2 + np.exp(log_var_2) - 1 - log_var_2) / 2
    kls = [kl.mean((0, 1)) for kl in (kl_1, kl_2)]
    rate = sum(kl.sum() for kl in kls)
    np.testing.assert_allclose(found[:3], [distortion + rate, distortion, rate], 1e-6)
    for kl, expected in zip(found.kl_per_dim, kls, strict=True):
        np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.z_mean, mean_1, atol=1e-5)
    np.testing.assert_allclose(bounds.encode(model, params, split), mean_1, atol=1e-5)
    within = np.var(mean_2, axis=0, ddof=1).mean(0) / 10
    variances = [mean_1.var(0), mean_2.mean(0).var(0) - within]
    active = [np.sum(variance > 0.12) for variance in variances]
    assert list(found.active_units) == active and active[0] != active[1]


def test_equal_images_leave_no_unit_active(split):
    """Though the upper layer's posterior means differ from sample to sample."""
    model = build(TWO)
    params = tf.nest.map_structure(lambda w: 5 * w, model.init(0))
    same = Split(*(tf.repeat(part[:1], 400, axis=0) for part in split))
    assert bounds.evaluate(model, params, same, "test", 0).active_units == (0, 0)


@pytest.mark.parametrize("settings", [ONE, TWO], ids=["one layer", "two layers"])
@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
def test_the_rate_of_a_learned_prior_is_estimated_by_ten_samples(
    split, prior, settings
):
    """For its layer as a whole: -ELBO is the mean of -log w over images and samples."""
    learned = dict(prior=prior, prior_components=3, flow_layers=2, flow_units=4)
    model = build(dataclasses.replace(settings, **learned))
    params = model.init(0)
    dims, key = model.latent_dims, rng.fold(rng.key(0, rng.Stream.EVALUATE, 3), 0)
    noise = rng.normal(key, [10, 100, sum(dims)])[:, :60]
    x = tf.cast(split.pixels, tf.float32)
    inference = model.infer(params, x, noise)
    expected = -np.mean(terms.log_importance_weights(inference, x))
    rate = np.mean(terms.log_posterior(inference) - terms.log_prior(inference))
    found = bounds.evaluate(model, params, split, "test", 0)
    np.testing.assert_allclose(found[:3], [expected, expected - rate, rate], rtol=1e-5)
    assert [kl.shape for kl in found.kl_per_dim] == [*((d,) for d in dims[:-1]), (1,)]
    assert len(found.active_units) == len(dims) and found.z_mean.shape == (60, dims[0])
