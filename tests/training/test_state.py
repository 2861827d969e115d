import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.training import state as states


@pytest.fixture
def params():
    return {
        "decoder": {"w": tf.Variable([[1.0, 2.0]], name="decoder/w")},
        "encoder": {"w": tf.Variable([3.0], name="encoder/w")},
    }


def same(found, expected):
    tf.nest.assert_same_structure(found, expected)
    return all(map(np.array_equal, tf.nest.flatten(found), tf.nest.flatten(expected)))


def test_a_new_state_has_taken_no_step(params):
    state = states.init(params, settings.Adam())
    assert state.params is params
    zeros = tf.nest.map_structure(tf.zeros_like, params)
    assert same(state.m, zeros) and same(state.v, zeros)
    assert state.m["encoder"]["w"] is not state.v["encoder"]["w"]
    assert state.step.dtype == tf.int64 and int(state.step) == 0
    assert state.totals.dtype == tf.float64
    np.testing.assert_array_equal(state.totals, np.zeros(len(states.MEASURES)))


def test_without_an_average_the_weights_are_the_parameters(params):
    state = states.init(params, settings.Adam(ema_decay=0.0))
    assert state.average == {} and state.weights is params


def test_an_average_starts_at_the_parameters_and_is_a_copy(params):
    state = states.init(params, settings.Adam(ema_decay=0.9))
    assert state.weights is state.average and same(state.average, params)
    params["encoder"]["w"].assign([7.0])
    np.testing.assert_array_equal(state.average["encoder"]["w"], [3.0])


def test_measures_are_the_losses_and_the_norm_of_the_gradient():
    assert states.MEASURES == ("loss", "distortion", "rate", "gradient_norm")


def test_an_epochs_record_holds_means_over_its_steps(params):
    state = states.init(params, settings.Adam())
    state.step.assign(12)
    state.totals.assign([40.0, 28.0, 12.0, 2.0])
    assert states.epoch_record(state, 4, 1.5) == {
        "epoch": 3,
        "step": 12,
        "seconds": 1.5,
        "train_loss": 10.0,
        "train_distortion": 7.0,
        "train_rate": 3.0,
        "gradient_norm": 0.5,
    }


def test_an_epochs_record_is_made_of_plain_numbers(params):
    """They go into JSON."""
    state = states.init(params, settings.Adam())
    state.step.assign(4)
    record = states.epoch_record(state, 4, 1.5)
    assert {name: type(value) for name, value in record.items()} == {
        name: int if name in ("epoch", "step") else float for name in record
    }
