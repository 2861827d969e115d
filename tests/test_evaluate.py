import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from core import batches, evaluate, hierarchical, rng, vae
from core.vae import Inference, Latent


@pytest.fixture
def model(digits):
    """(params, pixels [60, 784], labels [60], to_batch)."""
    pixels = batches.fixed_pixels(batches.flatten(digits[1].images), "static", 0, 1)
    to_batch = functools.partial(batches.to_batch, binarization="static")
    params = vae.init(0, (16,), 3, 0.13)
    return params, pixels, tf.constant(digits[1].labels), to_batch


INFER = functools.partial(vae.infer, activation=tf.tanh)


def evaluate_with(model, seed=0, index=1, count=60):
    params, pixels, labels, to_batch = model
    run = evaluate.make_evaluate(INFER, params, to_batch, seed, (3,))
    return run(pixels[:count], labels[:count], index)


def float64(params):
    return tf.nest.map_structure(lambda p: p.numpy().astype(np.float64), params)


def net(layers, x):
    hidden = np.tanh(x @ layers["dense_0"]["w"] + layers["dense_0"]["b"])
    return hidden @ layers["output"]["w"] + layers["output"]["b"]


@pytest.mark.parametrize("chunk", [1000, 16])
def test_evaluation_agrees_with_numpy_in_float64(model, monkeypatch, chunk):
    """In one chunk that is not full, and in four, each with noise of its own."""
    monkeypatch.setattr(evaluate, "CHUNK", chunk)
    params, pixels, _, _ = model
    params, x = float64(params), pixels.numpy().astype(np.float64)
    mean, log_var = np.split(net(params["encoder"], x), 2, axis=1)
    key = rng.key(0, rng.Stream.EVALUATE, 3)
    chunks = [rng.normal(rng.fold(key, i), [1, chunk, 3])[0] for i in range(4)]
    noise = np.concatenate(chunks)[:60]
    logits = net(params["decoder"], mean + np.exp(log_var / 2) * noise)
    distortion = np.mean(np.sum(np.logaddexp(0, logits) - x * logits, axis=1))
    kl = np.mean((mean**2 + np.exp(log_var) - 1 - log_var) / 2, axis=0)
    found = evaluate_with(model)
    expected = [distortion + kl.sum(), distortion, kl.sum()]
    np.testing.assert_allclose(found[:3], expected, rtol=1e-6)
    np.testing.assert_allclose(found.kl_per_dim[0], kl, rtol=1e-4)
    np.testing.assert_allclose(found.z_mean, mean, atol=1e-5)
    encode = evaluate.make_encode(INFER, model[0], model[3], (3,))
    np.testing.assert_allclose(encode(*model[1:3]), mean, atol=1e-5)


def test_the_noise_is_of_the_seed_and_the_split(model):
    assert evaluate_with(model)[:4] == evaluate_with(model)[:4]
    assert evaluate_with(model).distortion != evaluate_with(model, seed=1).distortion
    assert evaluate_with(model).distortion != evaluate_with(model, index=0).distortion


def test_active_units_are_those_whose_mean_varies():
    spread = np.sqrt([0.0099, 0.0101, 0.0101, 1.0, 0.0])
    signs = np.tile([[1.0], [-1.0]], [50, 1])
    error = np.tile([0.0, 0.0, 0.0002, 0.0, 0.0], [100, 1])
    assert evaluate.active_units(5 + signs * spread, error) == 2


def gaussian_log_prob(z, mean, log_var):
    return -((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi)) / 2


def test_evaluation_of_two_layers_agrees_with_numpy_in_float64(model, monkeypatch):
    """Ten samples an image; the lower layer's KL is estimated by them."""
    monkeypatch.setattr(evaluate, "ACTIVE_VARIANCE", 0.12)  # which some units pass
    _, pixels, labels, to_batch = model
    variables = hierarchical.init(0, (16,), (4, 3), (8,))
    infer = functools.partial(hierarchical.infer, activation=tf.tanh)
    run = evaluate.make_evaluate(infer, variables, to_batch, 0, (4, 3))
    found = run(pixels, labels, 1)
    params, x = float64(variables), pixels.numpy().astype(np.float64)
    key = rng.fold(rng.key(0, rng.Stream.EVALUATE, 3), 0)
    noise = rng.normal(key, [10, 100, 7]).numpy()[:, :60].astype(np.float64)
    q_1 = mean_1, log_var_1 = np.split(net(params["encoder"], x), 2, axis=-1)
    z_1 = mean_1 + np.exp(log_var_1 / 2) * noise[..., :4]
    mean_2, log_var_2 = np.split(net(params["upper_encoder"], z_1), 2, axis=-1)
    z_2 = mean_2 + np.exp(log_var_2 / 2) * noise[..., 4:]
    p_1 = np.split(net(params["upper_decoder"], z_2), 2, axis=-1)
    logits = net(params["decoder"], z_1)
    distortion = np.mean(np.sum(np.logaddexp(0, logits) - x * logits, axis=-1))
    kl_1 = gaussian_log_prob(z_1, *q_1) - gaussian_log_prob(z_1, *p_1)
    kl_2 = (mean_2**2 + np.exp(log_var_2) - 1 - log_var_2) / 2
    kls = [kl.mean((0, 1)) for kl in (kl_1, kl_2)]
    rate = sum(kl.sum() for kl in kls)
    np.testing.assert_allclose(found[:3], [distortion + rate, distortion, rate], 1e-6)
    for kl, expected in zip(found.kl_per_dim, kls, strict=True):
        np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.z_mean, mean_1, atol=1e-5)
    within = np.var(mean_2, axis=0, ddof=1).mean(0) / 10
    variances = [mean_1.var(0), mean_2.mean(0).var(0) - within]
    active = [np.sum(variance > 0.12) for variance in variances]
    assert list(found.active_units) == active and active[0] != active[1]


def test_equal_images_leave_no_unit_active(model):
    """Though the upper layer's posterior means differ from sample to sample."""
    _, pixels, labels, to_batch = model
    params = tf.nest.map_structure(
        lambda w: 5 * w, hierarchical.init(0, (16,), (4, 3), (8,))
    )
    infer = functools.partial(hierarchical.infer, activation=tf.tanh)
    run = evaluate.make_evaluate(infer, params, to_batch, 0, (4, 3))
    same = tf.repeat(pixels[:1], 400, axis=0), tf.repeat(labels[:1], 400)
    assert run(*same, 1).active_units == (0, 0)


# --- log p(x) -------------------------------------------------------------------------


def log_marginal_with(model, num_samples, infer=INFER, seed=0, count=60, jit=False):
    params, pixels, labels, to_batch = model
    run = evaluate.make_log_marginal(infer, params, to_batch, seed, (3,), jit)
    seen = []
    found = run(pixels[:count], labels[:count], 1, num_samples, seen.append)
    assert sum(seen) == count
    return found


def test_an_estimate_that_is_stopped_starts_no_other_tile(model, monkeypatch):
    """What the main thread is told to do, its helpers must not outlive by minutes."""
    params, pixels, labels, to_batch = model
    run = evaluate.make_log_marginal(INFER, params, to_batch, 0, (3,), False)
    run(pixels[:20], labels[:20], 1, 10, lambda n: None)  # so that all is traced
    started, gather = [], tf.gather
    monkeypatch.setattr(evaluate, "TILES", 1)
    monkeypatch.setattr(tf, "gather", lambda *a: started.append(a) or gather(*a))

    def stop(count):
        raise KeyboardInterrupt

    many = tf.tile(pixels, [10, 1]), tf.tile(labels, [10])
    with pytest.raises(KeyboardInterrupt):
        run(*many, 1, 10_000, stop)
    assert 2 <= len(started) <= 6  # pixels and labels of the first tiles, of 30


def noise_of(tile, samples, dims=3, seed=0):
    """The noise [samples, 1, dims] that the images of a tile share."""
    key = rng.fold(rng.key(seed, rng.Stream.LIKELIHOOD, 1), tile)
    blocks = [
        rng.normal(rng.fold(key, block), [100, 1, dims])
        for block in range(-(-samples // 100))
    ]
    return np.concatenate(blocks)[:samples]


@pytest.mark.parametrize("samples", [1, 250])
def test_log_p_agrees_with_numpy_in_float64(model, samples):
    """On the handful of images of the last, half-filled tile."""
    params, x = float64(model[0]), model[1].numpy()[50:55].astype(np.float64)
    mean, log_var = np.split(net(params["encoder"], x), 2, axis=1)
    noise = noise_of(2, samples).astype(np.float64)
    z = mean + np.exp(log_var / 2) * noise
    logits = net(params["decoder"], z)
    log_w = np.sum(x * logits - np.logaddexp(0, logits), axis=-1)
    log_w += np.sum(noise**2 + log_var - z**2, axis=-1) / 2
    expected = np.logaddexp.reduce(log_w, axis=0) - np.log(samples)
    found = log_marginal_with(model, samples, count=55)[50:]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_blocks_and_xla_do_not_change_log_p(model, monkeypatch):
    whole = log_marginal_with(model, 730)
    np.testing.assert_allclose(log_marginal_with(model, 730, jit=True), whole, 1e-6)
    monkeypatch.setattr(evaluate, "BLOCKS", 1)
    np.testing.assert_array_equal(log_marginal_with(model, 730), whole)
    np.testing.assert_array_equal(log_marginal_with(model, 730, count=17), whole[:17])


@pytest.mark.parametrize("jit", [False, True])
def test_bfloat16_rounds_log_p_but_hardly_moves_its_mean(model, jit):
    params, pixels, labels, to_batch = model
    exact, rounded = (
        evaluate.make_log_marginal(
            INFER, params, to_batch, 0, (3,), jit, bfloat16=bfloat16
        )(pixels, labels, 1, 500, lambda n: None)
        for bfloat16 in (False, True)
    )
    assert abs(np.mean(rounded - exact)) < 0.02
    assert 0.0005 < np.std(rounded - exact) < 0.1


def infer_known(params, x, noise, y=None):
    """p(z) = N(0, 1), Bernoulli logits of w z; and a posterior that is not the true."""
    mean = 0.3 * tf.reduce_sum(x[:, :2], axis=1, keepdims=True) - 0.2
    log_var = tf.fill(tf.shape(mean), -0.5)
    z = mean + tf.exp(0.5 * log_var) * noise
    latent = Latent(z, mean, log_var, tf.constant(0.0), tf.constant(0.0))
    return Inference((latent,), z * params["w"])


@pytest.fixture(scope="module")
def known():
    """(model of images of four pixels with one latent, all its 16 images)."""
    images = np.array(list(itertools.product([0, 1], repeat=4)), np.uint8)
    params = {"w": tf.constant([[1.5, -2.0, 0.7, 3.0]])}
    to_batch = functools.partial(batches.to_batch, binarization="static")
    labels = tf.zeros([16], tf.uint8)
    return params, tf.constant(images), labels, to_batch


def exact_log_p(known):
    """log of the integral over z, on a grid of 20,001 points."""
    z = np.linspace(-10, 10, 20_001)[:, None]
    logits = z * known[0]["w"].numpy()
    prior = np.exp(-(z[:, 0] ** 2) / 2) / np.sqrt(2 * np.pi) * 1e-3
    images = known[1].numpy().astype(float)
    log_p = images @ logits.T - np.logaddexp(0, logits).sum(axis=1)
    return np.log(np.exp(log_p) @ prior)


@pytest.fixture(scope="module")
def known_log_p(known):
    """estimate(num_samples, runs) -> log p of the 16 images in each run [runs, 16]."""
    params, pixels, labels, to_batch = known
    run = evaluate.make_log_marginal(infer_known, params, to_batch, 0, (1,), jit=True)

    def estimate(num_samples, runs):
        return np.array(
            [run(pixels, labels, i, num_samples, lambda n: None) for i in range(runs)]
        )

    return estimate


def test_log_p_of_a_model_whose_marginal_is_known(known, known_log_p):
    """To within its standard error; and the probabilities of all images sum to one."""
    exact = exact_log_p(known)
    assert np.exp(exact).sum() == pytest.approx(1, abs=1e-9)
    p = np.exp(known_log_p(2000, 20))
    errors = np.abs(p.mean(0) - np.exp(exact)) / (p.std(0) / np.sqrt(20))
    # The images share their noise, so their errors are alike: none may be above four.
    assert np.sqrt(np.mean(errors**2)) < 2.5 and errors.max() < 4
    totals = p.sum(axis=1)
    assert abs(totals.mean() - 1) < 3 * totals.std() / np.sqrt(20)


def test_the_bound_grows_with_the_samples_and_stays_below_the_truth(known, known_log_p):
    bounds = [np.mean(known_log_p(samples, 60)) for samples in (1, 10, 100)]
    truth = np.mean(exact_log_p(known))
    assert bounds[0] < bounds[1] - 0.01 and bounds[1] < bounds[2] - 0.001
    assert bounds[2] < truth + 1e-3
