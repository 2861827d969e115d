import math
import shutil
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from core import numerics
from core import settings as settings_of
from core.data import batches
from core.errors import UserError
from core.onward import diffusion, scores
from core.run.process import NoStop
from core.settings import Adam, Model
from core.training import state as states
from tests.onward.differences import assert_differences_agree
from tests.runs import StopAfter, assert_same_numbers, newest_checkpoint

DIM = 3
ADAM = Adam(1e-2)


def make(dtype=tf.float64, sizes=(16, 16)):
    return diffusion.init(Model(hidden_sizes=sizes), DIM, 0, dtype)


def normal(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape))


def levels_of(steps, last=diffusion.LEVELS):
    return np.linspace(0, last, steps + 1).round().astype(int).tolist()


# --- Noise, added ---------------------------------------------------------------------


def test_q_at_once_is_its_chain_of_steps():
    """q(z_t|z_0) of mean and variance by T steps of q(z_t|z_t-1), equation (2)."""

    def f(t):  # Nichol and Dhariwal, equation (17), with s = 0.008
        return math.cos((t / diffusion.LEVELS + 0.008) / 1.008 * math.pi / 2) ** 2

    mean, variance = 1.0, 0.0
    of_z, of_noise = diffusion.scales(tf.range(diffusion.LEVELS + 1), tf.float64)
    assert (float(of_z[0, 0]), float(of_noise[0, 0])) == (1, 0)
    for t in range(1, diffusion.LEVELS + 1):
        beta = min(1 - f(t) / f(t - 1), 0.999)
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert float(of_z[t, 0]) == pytest.approx(mean, rel=1e-9)
        assert float(of_noise[t, 0]) ** 2 == pytest.approx(variance, rel=1e-9)
    assert mean < 0.01 and variance > 0.9999


def test_noise_is_added_to_each_row_at_its_level():
    z, noise = normal(2, DIM), normal(2, DIM, seed=1)
    found = diffusion.add_noise(z, tf.constant([0, 1000]), noise)
    np.testing.assert_allclose(found[0], z[0], rtol=1e-12)
    np.testing.assert_allclose(found[1], noise[1], atol=0.02)


def test_the_loss_of_no_prediction_is_the_part_of_z():
    """A network of zeros takes z_t for the noise: at T that is nearly right."""
    params = tf.nest.map_structure(tf.zeros_like, make())
    z, noise = normal(100, DIM), normal(100, DIM, seed=1)
    for t, low, high in ((1000, 0, 1e-3), (1, 0.8, 1.2)):
        loss = diffusion.loss_of(params, z, tf.fill([100], t), noise)
        assert low < float(loss) < high


def test_gradients_agree_with_differences():
    params, z, noise = make(), normal(6, DIM), normal(6, DIM, seed=1)
    t = tf.constant([1, 10, 200, 500, 900, 1000])
    assert_differences_agree(lambda: diffusion.loss_of(params, z, t, noise), params)


def test_steps_lower_the_loss():
    state = states.init(make(tf.float32), ADAM)
    z = tf.cast(normal(200, DIM), tf.float32) * [0.1, 1.0, 0.1] + [1.0, 0.0, -1.0]
    noise = tf.cast(normal(1, 200, DIM + 1, seed=1), tf.float32)
    batch = batches.Batch(z, None, noise)
    losses = [diffusion.train_step(state, batch, ADAM)[0] for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    assert int(state.step) == 40


# --- Noise, taken away ----------------------------------------------------------------


def test_ddim_leads_there_and_back_by_a_constant_noise():
    constant, z = normal(1, DIM, seed=2), normal(5, DIM)

    def predict(z, t):
        return constant + tf.zeros_like(z)

    up = diffusion.lead(predict, z, levels_of(10))
    down = diffusion.lead(predict, up[-1], levels_of(10)[::-1])
    assert np.max(np.abs(up[-1] - z)) > 0.1
    np.testing.assert_allclose(down[-1], z, rtol=1e-9, atol=1e-9)
    for there, back in zip(up, reversed(down), strict=True):
        np.testing.assert_allclose(there, back, rtol=1e-9, atol=1e-9)


def test_ddim_there_and_back_by_a_network_errs_less_by_more_steps():
    predict, z = partial(diffusion.predict_noise, make()), normal(20, DIM)
    errors = []
    for steps in (10, 30, 90):
        up = diffusion.lead(predict, z, levels_of(steps, 800))
        down = diffusion.lead(predict, up[-1], levels_of(steps, 800)[::-1])
        errors.append(float(tf.norm(down[-1] - z) / tf.norm(z)))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.1


def test_ddim_by_the_true_noise_of_a_point_leads_to_it():
    """Where z_0 is always the same, its noise in z_t is known."""
    point = normal(1, DIM, seed=3)

    def predict(z, t):
        of_z, of_noise = diffusion.scales(t, z.dtype)
        return (z - of_z * point) / of_noise

    path = diffusion.lead(predict, normal(5, DIM), levels_of(50)[::-1])
    np.testing.assert_allclose(path[-1], np.repeat(point, 5, axis=0), atol=1e-9)
    assert len(path) == 51


# --- The whole program ----------------------------------------------------------------


@pytest.fixture
def run(two_epochs, tmp_path, monkeypatch):
    """A small run, by its folder's name; without compilation."""
    monkeypatch.setattr(scores, "SAMPLES", 100)
    shorter = scores.CLASSIFIER._replace(training=settings_of.Training(1, 20))
    monkeypatch.setattr(scores, "CLASSIFIER", shorter)

    def run(name, stop=None, **changes):
        values = dict(run_dir=str(tmp_path / name), runs=str(two_epochs), epochs=2)
        values |= dict(batch_size=100, hidden_sizes=(8,)) | changes
        with numerics.execution(eager=True):
            asked = settings_of.of_values(diffusion.DEFAULTS | values)
            diffusion.run(asked, stop or NoStop())
        return tmp_path / name

    return run


def test_too_few_images_to_score_are_refused_before_training(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(scores, "NEIGHBOR", 10_000)
    with pytest.raises(UserError, match="training and 10001 test images, .*, got"):
        run("few")
    assert not (tmp_path / "few").exists()


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(run, monkeypatch):
    straight = run("one")
    assert "\ndiffusion model  " in (straight / "scores.txt").read_text()
    monkeypatch.setattr(scores, "report", lambda *arguments: None)
    stopped = run("other", StopAfter(1))
    assert not (stopped / "figures").exists()
    run("other")
    assert_same_numbers(newest_checkpoint(straight), newest_checkpoint(stopped))
    for name in ("metrics.jsonl", "figures/noise_levels.png"):
        assert (straight / name).read_bytes() == (stopped / name).read_bytes()


def test_without_a_vae_it_says_so(run):
    with pytest.raises(UserError, match="--runs=/nowhere: expected a trained VAE"):
        run("one", runs="/nowhere")


def test_a_run_does_not_go_on_with_the_latents_of_other_weights(
    run, two_epochs, tmp_path, monkeypatch
):
    """Of the same folder; where a folder lies changes nothing."""
    other = shutil.copytree(two_epochs, tmp_path / "vae")
    run("one", StopAfter(1))
    run("one", StopAfter(1), runs=f"{other},{two_epochs}")
    open_vaes = scores.open_vaes

    def trained_further(runs):
        (name, (model, weights, data, settings)), *_ = open_vaes(runs).items()
        first = tf.nest.flatten(weights)[0]
        first.assign(first + 1)
        return {name: (model, weights, data, settings)}

    monkeypatch.setattr(scores, "open_vaes", trained_further)
    with pytest.raises(UserError, match=f"other data .*latents by .* of {two_epochs}"):
        run("one")
