from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from core.data import datasets
from core.errors import UserError
from core.onward import steps
from core.run.folder import RunFolder
from core.run.process import NoStop
from core.settings import Adam, Data, Run, Settings, Training
from core.training import adam
from core.training import state as states
from tests.runs import StopAfter

ADAM = Adam(learning_rate=0.1, learning_rate_schedule="constant", ema_decay=0.9)


def make(start=(1.0, 2.0)):
    return states.init({"p": tf.Variable(start)}, ADAM)


def test_a_step_is_adams_and_the_averages_and_is_counted():
    found, expected, grads = make(), make(), [tf.constant([3.0, 4.0])]
    assert float(steps.learn(found, {"p": grads[0]}, ADAM)) == 5
    adam.apply(expected, grads, 0.1, ADAM)
    adam.follow(expected, 0.9)
    assert int(found.step) == 1
    np.testing.assert_array_equal(found.params["p"], expected.params["p"])
    np.testing.assert_array_equal(found.average["p"], expected.average["p"])
    assert np.all(found.params["p"].numpy() < [1, 2])


@pytest.fixture
def split():
    pixels = tf.reshape(tf.range(7 * 784) // 784, [7, 784])
    return datasets.Split(tf.cast(pixels, tf.uint8), tf.range(7))


def block(split, number):
    asked = Settings(Run(seed=3), training=Training(batch_size=3))
    return steps.block(split, asked, number, 2, 5)


def test_a_block_is_an_epoch_in_an_order_of_its_own(split):
    first, second = block(split, 0), block(split, 1)
    assert first.pixels.shape == (2, 3, 784) and int(first.count) == 2
    assert len(np.unique(first.labels)) == 6
    np.testing.assert_array_equal(first.pixels[..., 0], first.labels)
    assert np.any(first.labels != second.labels)


def test_noise_is_that_of_the_steps_position(split):
    """So an epoch has the same, whether the run was stopped before it or not."""
    both = [block(split, number).noise for number in (0, 1)]
    asked = Settings(Run(seed=3), training=Training(batch_size=3))
    assert both[0].shape == (2, 2, 3, 5)
    rows = steps.batches.noise(asked.run.seed, 0, (4, 2, 3, 5))
    np.testing.assert_array_equal(tf.concat(both, axis=0), rows)


def test_a_compiled_block_takes_every_step_and_yields_means(split):
    def train_step(state, batch, adam_settings):
        state.step.assign_add(1)
        return tf.stack([tf.reduce_mean(batch.noise), tf.cast(state.step, tf.float32)])

    state, seen = make(), block(split, 0)
    means = steps.compiled(train_step, 2)(state, seen, ADAM)
    np.testing.assert_allclose(means, [np.mean(seen.noise), 1.5], rtol=1e-5)
    assert int(state.step) == 2


# --- A run in its folder --------------------------------------------------------------


@pytest.fixture
def data(digits):
    return datasets.split("tiny", *digits, Data(validation_size=30))


def take(folder, data, state, epochs, stop=None, seed=0, means=(0.5,)):
    """Epochs in which one weight grows by 1 a step; the numbers of those taken."""
    asked = Settings(
        Run(run_dir=str(folder), seed=seed), training=Training(epochs, 100)
    )
    taken = []
    with RunFolder(asked.run) as folder:
        for number in steps.epochs(folder, state, data, asked, stop or NoStop()):
            taken.append(number)
            for _ in range(3):
                state.params["p"].assign_add([1.0, 1.0])
                state.step.assign_add(1)
            steps.keep(folder, asked, ["loss"], tf.constant(means))
    return taken


def test_a_run_goes_on_where_it_was_stopped(tmp_path, data, capsys):
    folder = tmp_path / "run"
    assert take(folder, data, make(), 4, StopAfter(1)) == [0]
    said = capsys.readouterr().out
    assert "epoch 1/4  loss 0.5000" in said and "go on from it with" in said
    state = make()
    assert take(folder, data, state, 4) == [1, 2, 3]
    np.testing.assert_array_equal(state.params["p"], [13, 14])
    assert (folder / "metrics.jsonl").read_text().count('"loss": 0.5') == 4
    assert take(folder, data, make(), 4) == []


def test_another_run_is_refused(tmp_path, data, digits):
    take(tmp_path / "run", data, make(), 1)
    with pytest.raises(UserError, match="--seed"):
        take(tmp_path / "run", data, make(), 2, seed=1)
    with pytest.raises(UserError, match="another model"):
        take(tmp_path / "run", data, make((1.0, 2.0, 3.0)), 2)
    other = datasets.split("tiny", *reversed(digits), Data(validation_size=30))
    with pytest.raises(UserError, match="other data"):
        take(tmp_path / "run", other, make(), 2)


def test_a_ruined_epoch_is_not_saved(tmp_path, data):
    take(tmp_path / "run", data, make(), 1)
    with pytest.raises(UserError, match="not finite.*--learning_rate=0.0002"):
        take(tmp_path / "run", data, make(), 2, means=(np.nan,))
    state = make()
    assert take(tmp_path / "run", data, state, 2) == [1]


def test_signals_wait_for_the_end_of_an_epoch(tmp_path, data):
    stop = SimpleNamespace(signal=0, deferred=False)
    asked = Settings(Run(run_dir=str(tmp_path / "run")), training=Training(1, 100))
    with RunFolder(asked.run) as folder:
        state = make()
        for _ in steps.epochs(folder, state, data, asked, stop):
            assert stop.deferred
            state.step.assign_add(3)
    assert not stop.deferred


def test_a_signal_as_the_last_epoch_ends_is_not_lost(tmp_path, data, capsys):
    class Late(NoStop):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "deferred" and not value:
                self.asked = 15

    asked = Settings(Run(run_dir=str(tmp_path / "run")), training=Training(1, 100))
    with RunFolder(asked.run) as folder:
        state = make()
        for _ in steps.epochs(folder, state, data, asked, Late()):
            state.step.assign_add(3)
    assert "Stopped. The checkpoint of step" in capsys.readouterr().out
