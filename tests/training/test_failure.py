import math

import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.errors import UserError
from core.run.folder import NoFolder
from core.training import failure
from core.training import state as states

ADAM = settings.Adam(learning_rate=0.05)
FINITE = tf.constant([1.0, 4.0, 9.0])


@pytest.fixture
def state():
    params = {
        "decoder": {"b": tf.Variable([1.0]), "w": tf.Variable([[1.0, 2.0]])},
        "encoder": {"w": tf.Variable([3.0])},
    }
    state = states.init(params, ADAM)
    state.step.assign(17)
    return state


def test_finite_numbers_pass(state):
    for numbers in (tf.constant([1.0, -2.0]), [1e30, 0.0], np.zeros(4), [12, 0.5]):
        failure.expect_finite(numbers, state, FINITE, ADAM, NoFolder())


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_first_gradient_that_is_not_finite_is_named(state, number, place):
    """In the order of the squared norms, which is that of `tf.nest.flatten`."""
    squares = FINITE.numpy()
    squares[place:] = number
    with pytest.raises(UserError) as error:
        numbers = [1.0, number]
        failure.expect_finite(numbers, state, tf.constant(squares), ADAM, NoFolder())
    name = ("decoder/b", "decoder/w", "encoder/w")[place]
    assert str(error.value) == (
        "the loss, or what it left behind, is not finite at step 17, with "
        "--learning_rate=0.05; the first variable whose gradient is not finite: "
        f"{name}. Train again with --learning_rate=0.005"
    )


def test_weights_can_be_ruined_while_every_gradient_is_finite(state):
    state.params["decoder"]["b"].assign([math.inf])
    with pytest.raises(UserError, match="every gradient is finite, but the weights"):
        failure.expect_finite([math.nan], state, FINITE, ADAM, NoFolder())


def test_the_rate_is_not_blamed_for_the_gradient_of_the_first_step(state):
    state.step.assign(1)
    squares = tf.constant([1.0, math.inf, 9.0])
    with pytest.raises(
        UserError, match="decoder/w. No rate has .*: look .* of your own$"
    ):
        failure.expect_finite([math.nan], state, squares, ADAM, NoFolder())
    state.params["decoder"]["b"].assign([math.inf])
    with pytest.raises(UserError, match="with --learning_rate=0.005$"):
        failure.expect_finite([math.nan], state, FINITE, ADAM, NoFolder())


@pytest.mark.parametrize("step, advice", [(1, "No rate has"), (7, "Train again")])
def test_where_all_else_is_finite_it_is_the_formula(state, step, advice):
    state.step.assign(step)
    with pytest.raises(UserError, match=f"look at the loss's formula. {advice}"):
        failure.expect_finite([math.nan], state, FINITE, ADAM, NoFolder())


def test_the_folder_says_how_to_go_on(state):
    class Folder:
        def how_to_go_on(self, *changed):
            return f"Go on by {changed}."

    with pytest.raises(UserError, match=r"Go on by \('--learning_rate=0.005',\)\."):
        failure.expect_finite([math.nan], state, FINITE, ADAM, Folder())


def test_a_weight_that_is_not_finite_is_seen_and_one_whose_square_is_not(state):
    failure.expect_finite_weights(state, FINITE, ADAM, NoFolder())
    for number in (math.nan, 1e30):
        state.params["decoder"]["w"].assign([[1.0, number]])
        with pytest.raises(UserError, match="but the weights are ruined"):
            failure.expect_finite_weights(state, FINITE, ADAM, NoFolder())
