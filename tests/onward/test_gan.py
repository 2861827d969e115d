import re

import numpy as np
import pytest
import tensorflow as tf

from core import numerics
from core import settings as settings_of
from core.data import batches
from core.errors import UserError
from core.onward import gan, scores
from core.run.process import NoStop
from core.settings import Adam, Model
from tests.onward.differences import assert_differences_agree
from tests.runs import StopAfter, assert_same_numbers, newest_checkpoint

SMALL = Model(latent_dim=3, hidden_sizes=(4, 5))
ADAM = Adam(1e-3, beta1=0.0, beta2=0.99)


def make(settings=SMALL, dtype=tf.float64):
    """(weights of the generator, of the discriminator, images, noise)."""
    random = np.random.default_rng(0)
    players = gan.init(settings, ADAM, 0, dtype)
    x, z = random.uniform(size=[6, 784]), random.standard_normal([6, 3])
    weights = (player.params for player in players)
    return *weights, tf.constant(x, dtype), tf.constant(z, dtype)


def test_the_generator_draws_what_the_discriminator_judges():
    generator, discriminator, x, z = make()
    drawn = gan.draw(generator, z)
    assert drawn.shape == x.shape and 0 < np.min(drawn) and np.max(drawn) < 1
    assert np.mean(drawn) == pytest.approx(0.12, abs=0.05)  # little ink at first
    assert gan.judge(discriminator, x).shape == (6, 1)


def test_the_losses_are_the_logarithms_of_probabilities():
    generator, discriminator, x, z = make()
    real = tf.sigmoid(gan.judge(discriminator, x))
    drawn = tf.sigmoid(gan.judge(discriminator, gan.draw(generator, z)))
    wrong, r1, loss = gan.discriminator_loss(generator, discriminator, x, z)
    by_hand = -np.mean(np.log(real)) - np.mean(np.log(1 - drawn))
    assert float(wrong) == pytest.approx(by_hand, rel=1e-9)
    assert float(loss) == pytest.approx(float(wrong + r1), rel=1e-12)
    found = gan.generator_loss(generator, discriminator, z)
    assert float(found) == pytest.approx(-np.mean(np.log(drawn)), rel=1e-9)


@pytest.mark.parametrize("part", [0, 1, 2], ids=["right or wrong", "R1", "both"])
def test_the_discriminators_gradients_agree_with_differences(part):
    """R1's are second derivatives. Biases of layers above move no slope."""
    generator, discriminator, x, z = make()

    def loss():
        return gan.discriminator_loss(generator, discriminator, x, z)[part]

    if part == 1:
        only = {n: {"w": layer["w"]} for n, layer in discriminator.items()}
        return assert_differences_agree(loss, only)
    assert_differences_agree(loss, discriminator)


def test_the_generators_gradients_agree_with_differences():
    generator, discriminator, _, z = make()
    assert_differences_agree(
        lambda: gan.generator_loss(generator, discriminator, z), generator
    )


def test_r1_of_a_linear_discriminator_is_its_weights_norm():
    """The slope of x w + b is w, at every image."""
    generator, _, x, z = make()
    w = tf.Variable(np.random.default_rng(1).standard_normal([784, 1]))
    linear = {"output": {"w": w, "b": tf.Variable(np.zeros(1))}}
    with tf.GradientTape() as tape:
        _, r1, _ = gan.discriminator_loss(generator, linear, x, z)
    assert float(r1) == pytest.approx(gan.R1 / 2 * np.sum(w**2), rel=1e-9)
    np.testing.assert_allclose(tape.gradient(r1, w), gan.R1 * w, rtol=1e-9)


def test_r1_of_a_hidden_layer_is_the_formula_by_hand():
    """The slope is W v where units are on, and a fifth of it where they are off."""
    generator, discriminator, x, z = make(Model(latent_dim=3, hidden_sizes=(4,)))
    first, last = discriminator["dense_0"], discriminator["output"]
    on = np.where(x @ first["w"] + first["b"] > 0, 1, 0.2)
    slope = (on * last["w"].numpy().T) @ first["w"].numpy().T
    _, r1, _ = gan.discriminator_loss(generator, discriminator, x, z)
    by_hand = gan.R1 / 2 * np.mean(np.sum(slope**2, axis=1))
    assert float(r1) == pytest.approx(by_hand, rel=1e-9)


def test_steps_lower_what_each_player_minimizes():
    """Each against an opponent that stands still."""
    players = gan.init(SMALL, ADAM, 0)
    x = tf.cast(np.random.default_rng(0).uniform(size=[20, 784]) < 0.1, tf.float32)
    z = tf.constant(np.random.default_rng(1).standard_normal([2, 20, 3]), tf.float32)
    start = [tf.nest.map_structure(tf.identity, player.params) for player in players]

    def losses(generator, discriminator):
        wrong = gan.discriminator_loss(generator, discriminator, x, z[0])[2]
        return float(wrong), float(gan.generator_loss(generator, discriminator, z[1]))

    before = losses(*start)
    for _ in range(20):
        found = gan.train_step(players, batches.Batch(x, None, z), ADAM)
    assert int(players.step) == int(players.discriminator.step) == 20
    assert np.all(np.isfinite(found)) and found.shape == (len(gan.MEASURES),)
    assert losses(start[0], players.discriminator.params)[0] < before[0]
    assert losses(players.generator.params, start[1])[1] < before[1]


# --- The whole program ----------------------------------------------------------------


@pytest.fixture
def run(data_dir, tmp_path, monkeypatch):
    """A small run, by its folder's name; without compilation."""
    monkeypatch.setattr(scores, "SAMPLES", 100)
    shorter = scores.CLASSIFIER._replace(training=settings_of.Training(1, 20))
    monkeypatch.setattr(scores, "CLASSIFIER", shorter)

    def run(name, stop=None, **changes):
        values = dict(data_dir=str(data_dir), run_dir=str(tmp_path / name), epochs=2)
        values |= dict(validation_size=30, batch_size=20, hidden_sizes=(8, 8)) | changes
        with numerics.execution(eager=True):
            gan.run(settings_of.of_values(gan.DEFAULTS | values), stop or NoStop())
        return tmp_path / name

    return run


def test_too_few_images_to_score_are_refused_before_training(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(scores, "NEIGHBOR", 10_000)
    with pytest.raises(UserError, match="training and 10001 test images, .*, got"):
        run("few")
    assert not (tmp_path / "few").exists()


def test_a_run_ends_with_a_picture_and_a_table_and_goes_on_after_a_stop(
    run, two_epochs, capsys, monkeypatch
):
    """To the same bits, as if it had not been stopped."""
    folder = run("one", runs=str(two_epochs))
    said = capsys.readouterr().out
    rows = ("training images", str(two_epochs)[-22:], "GAN")
    for name in rows:
        assert re.search(rf"^{re.escape(name)} +[\d.]+ +[\d.]+", said, re.MULTILINE)
    assert (folder / "figures" / "samples.png").exists()
    assert "epoch 2/2" in said and "discriminator" in said

    monkeypatch.setattr(scores, "report", lambda *arguments: None)
    stopped = run("other", StopAfter(1), runs="")
    assert "go on from it with" in capsys.readouterr().out
    assert "epoch 2/2" in said and not (stopped / "scores.txt").exists()
    run("other", runs="")
    assert_same_numbers(newest_checkpoint(folder), newest_checkpoint(stopped))
    name = "metrics.jsonl"
    assert (folder / name).read_bytes() == (stopped / name).read_bytes()
