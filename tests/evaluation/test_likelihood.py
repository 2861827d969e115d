import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from core import numerics, rng
from core.data import batches, binarization
from core.data.datasets import Split
from core.evaluation import likelihood
from core.model import priors, terms
from core.model.build import build
from core.model.terms import Inference, Latent
from core.settings import Evaluation, Model, Run

ONE = Model(hidden_sizes=(16,), latent_dim=3, activation="tanh")
TWO = Model(hidden_sizes=(16,), stochastic_layers=2, latent_dims=(4, 3))


@pytest.fixture
def split(digits):
    """60 binarized images with their labels."""
    pixels = binarization.fixed_pixels(
        batches.flatten(digits[1].images), "static", 0, 1
    )
    return Split(pixels, tf.constant(digits[1].labels))


@pytest.fixture
def model():
    return build(ONE)


@pytest.fixture
def params(model):
    return model.init(0, 0.13)


KEY = rng.key(0, rng.Stream.LIKELIHOOD, 1)


def log_p(model, params, split, samples, jit=False, **settings):
    """log p(x) of all images, by one tile after the other."""
    settings = Evaluation(importance_samples=samples, **settings)
    here = Run(jit=jit)
    tiles = [*likelihood.log_marginal(model, params, split, KEY, settings, here)]
    starts = range(0, len(split.pixels), numerics.TILE)
    sizes = [min(numerics.TILE, len(split.pixels) - start) for start in starts]
    assert [len(tile) for tile in tiles] == sizes
    found = np.concatenate(tiles)
    assert found.dtype == np.float64
    return found


def first(split, count):
    return Split(split.pixels[:count], split.labels[:count])


def test_an_estimate_that_is_stopped_starts_no_other_tile(
    model, params, split, monkeypatch
):
    """What the main thread is told to do, its helpers must not outlive by minutes."""
    settings = Evaluation(importance_samples=10_000)
    started, gather = [], tf.gather
    monkeypatch.setattr(numerics, "TILES", 1)
    monkeypatch.setattr(tf, "gather", lambda *a: started.append(a) or gather(*a))
    many = Split(*(tf.concat([part] * 10, axis=0) for part in split))
    with pytest.raises(KeyboardInterrupt):
        for _ in likelihood.log_marginal(
            model, params, many, KEY, settings, Run(jit=False)
        ):
            raise KeyboardInterrupt
    images = [a for a in started if a[0] is many.pixels]
    assert 1 <= len(images) <= 3  # of 30 tiles


def noise_of(group, samples, dims=3):
    """The noise [samples, 1, dims] that the images of a group share."""
    shape = -(-samples // 100), 100, 1, dims
    noise = rng.normal_rows(KEY, 0, shape, lane=group).numpy()
    return noise.reshape(-1, 1, dims)[:samples]


def float64(params):
    return tf.nest.map_structure(lambda p: p.numpy().astype(np.float64), params)


def net(layers, x):
    hidden = np.tanh(x @ layers["dense_0"]["w"] + layers["dense_0"]["b"])
    return hidden @ layers["output"]["w"] + layers["output"]["b"]


@pytest.mark.parametrize("samples", [1, 250])
def test_log_p_agrees_with_numpy_in_float64(model, params, split, samples):
    """On the handful of images of the last, half-filled tile."""
    weights, x = float64(params), split.pixels.numpy()[50:55].astype(np.float64)
    mean, log_var = np.split(net(weights["encoder"], x), 2, axis=1)
    noise = noise_of(2, samples).astype(np.float64)
    z = mean + np.exp(log_var / 2) * noise
    logits = net(weights["decoder"], z)
    log_w = np.sum(x * logits - np.logaddexp(0, logits), axis=-1)
    log_w += np.sum(noise**2 + log_var - z**2, axis=-1) / 2
    expected = np.logaddexp.reduce(log_w, axis=0) - np.log(samples)
    found = log_p(model, params, first(split, 55), samples)[50:]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_groups_and_xla_do_not_change_log_p(model, params, split, monkeypatch):
    whole = log_p(model, params, split, 730)
    compiled = log_p(model, params, split, 730, jit=True)
    np.testing.assert_allclose(compiled, whole, 1e-6)
    monkeypatch.setattr(numerics, "CALLS", 1)
    np.testing.assert_array_equal(log_p(model, params, split, 730), whole)
    some = log_p(model, params, first(split, 17), 730)
    np.testing.assert_array_equal(some, whole[:17])


@pytest.mark.parametrize("jit", [False, True])
def test_the_tile_does_not_change_log_p(model, params, split, monkeypatch, jit):
    """Tiles differ between devices; groups of images that share noise do not."""
    small = log_p(model, params, split, 130, jit=jit)
    monkeypatch.setattr(numerics, "TILE", 40)
    np.testing.assert_allclose(log_p(model, params, split, 130, jit=jit), small, 1e-6)


@pytest.mark.parametrize("settings", [ONE, TWO], ids=["one layer", "two layers"])
def test_a_conditional_model_is_given_the_labels(split, settings):
    model = build(dataclasses.replace(settings, conditional=True))
    params, few = model.init(0, 0.13), first(split, 20)
    others = few._replace(labels=(few.labels + 1) % 10)
    found, other = (log_p(model, params, each, 20) for each in (few, others))
    assert np.all(found != other)
    x, y = batches.to_batch(few.pixels, few.labels)
    noise = noise_of(0, 20, sum(model.latent_dims))
    inference = model.infer(params, x, tf.constant(noise), y)
    log_w = terms.log_importance_weights(inference, x).numpy()
    expected = np.logaddexp.reduce(log_w.astype(np.float64), axis=0) - np.log(20)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_bfloat16_rounds_log_p_but_hardly_moves_its_mean(model, params, split, jit):
    exact, rounded = (
        log_p(model, params, split, 500, jit, bfloat16=bfloat16)
        for bfloat16 in (False, True)
    )
    assert abs(np.mean(rounded - exact)) < 0.02
    assert 0.0005 < np.std(rounded - exact) < 0.1


# --- A model whose marginal is known --------------------------------------------------


def infer_known(params, x, noise, y=None):
    """p(z) = N(0, 1), Bernoulli logits of w z; and a posterior that is not the true."""
    mean = 0.3 * tf.reduce_sum(x[:, :2], axis=1, keepdims=True) - 0.2
    log_var = tf.fill(tf.shape(mean), -0.5)
    z = mean + tf.exp(0.5 * log_var) * noise
    log_posterior = -0.5 * (noise**2 + log_var + np.log(2 * np.pi))[..., 0]
    log_prior = -0.5 * (z**2 + np.log(2 * np.pi))[..., 0]
    none = tf.zeros_like(mean)  # of no use here
    latent = Latent(z, mean, none, log_posterior, log_prior, kl=none)
    return Inference((latent,), z * params["w"])


@pytest.fixture(scope="module")
def known():
    """(model of images of four pixels with one latent, its weights, all 16 images)."""
    images = np.array(list(itertools.product([False, True], repeat=4)))
    params = {"w": tf.constant([[1.5, -2.0, 0.7, 3.0]])}
    model = build(Model(latent_dim=1))._replace(
        infer=infer_known, prior=priors.standard(1)
    )
    return model, params, Split(tf.constant(images), tf.zeros([16], tf.uint8))


def exact_log_p(known):
    """log of the integral over z, on a grid of 20,001 points."""
    _, params, split = known
    z = np.linspace(-10, 10, 20_001)[:, None]
    logits = z * params["w"].numpy()
    prior = np.exp(-(z[:, 0] ** 2) / 2) / np.sqrt(2 * np.pi) * 1e-3
    images = split.pixels.numpy().astype(float)
    log_likelihood = images @ logits.T - np.logaddexp(0, logits).sum(axis=1)
    return np.log(np.exp(log_likelihood) @ prior)


def known_log_p(known, num_samples, runs, monkeypatch):
    """log p of the 16 images in each run [runs, 16]; they are a group of their own."""
    model, params, split = known
    monkeypatch.setattr(numerics, "TILE", 16)
    monkeypatch.setattr(likelihood, "IMAGES", 16)
    pixels = tf.tile(tf.cast(split.pixels, tf.uint8), [runs, 1]) == 1
    many = Split(pixels, tf.tile(split.labels, [runs]))
    return log_p(model, params, many, num_samples, jit=True).reshape(runs, 16)


def test_log_p_of_a_model_whose_marginal_is_known(known, monkeypatch):
    """To within its standard error; and the probabilities of all images sum to one."""
    exact = exact_log_p(known)
    assert np.exp(exact).sum() == pytest.approx(1, abs=1e-9)
    p = np.exp(known_log_p(known, 2000, 20, monkeypatch))
    errors = np.abs(p.mean(0) - np.exp(exact)) / (p.std(0) / np.sqrt(20))
    # The images share their noise, so their errors are alike: none may be above four.
    assert np.sqrt(np.mean(errors**2)) < 2.5 and errors.max() < 4
    totals = p.sum(axis=1)
    assert abs(totals.mean() - 1) < 3 * totals.std() / np.sqrt(20)


def test_the_bound_grows_with_the_samples_and_stays_below_the_truth(known, monkeypatch):
    bounds = [
        np.mean(known_log_p(known, samples, 60, monkeypatch))
        for samples in (1, 10, 100)
    ]
    truth = np.mean(exact_log_p(known))
    assert bounds[0] < bounds[1] - 0.01 and bounds[1] < bounds[2] - 0.001
    assert bounds[2] < truth + 1e-3
