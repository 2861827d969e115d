"""A new run that begins with the weights of another."""

import dataclasses

import numpy as np
import pytest

from core import settings as settings_of
from core.errors import UserError
from core.run import checkpoint, config, start
from tests.run.states import arrays, make_state

HERE = settings_of.Model(hidden_sizes=(8,), activation="relu")


@pytest.fixture
def other(tmp_path):
    """The folder of a trained run."""
    flags = settings_of.values_of(settings_of.Settings(model=HERE))
    config.write(tmp_path, {"flags": flags})
    save(tmp_path, make_state(3, ema=True), 30)
    return tmp_path


def save(folder, state, step):
    checkpoint.save(checkpoint.make_saver(state), folder, step, 3, 0.0)


def test_a_run_of_the_same_model_will_do(other):
    start.expect_same_model(str(other), HERE)


@pytest.mark.parametrize(
    "model, message",
    [
        ({"hidden_sizes": (9,)}, r"--hidden_sizes \(the run: 8, now: 9\)"),
        ({"activation": "tanh"}, r"--activation \(the run: relu, now: tanh\)"),
        ({"conditional": True}, r"--conditional \(the run: False, now: True\)"),
    ],
    ids=["sizes", "activation", "labels"],
)
def test_a_run_of_another_model_will_not(other, model, message):
    asked = dataclasses.replace(HERE, **model)
    with pytest.raises(UserError, match=message) as error:
        start.expect_same_model(str(other), asked)
    assert str(error.value).startswith(f"--start_from={other}: {other} holds a run")


def test_neither_will_a_folder_without_a_run_or_without_its_checkpoints(other):
    for folder in (other / "nowhere", other):
        with pytest.raises(
            UserError, match="expected the folder of a trained"
        ) as error:
            start.expect_same_model(str(folder), HERE)
        assert str(error.value).startswith(f"--start_from={folder}: ")
        assert "--hidden_sizes" in str(error.value)  # what is to be the same
        for path in other.glob("ckpt-*"):
            path.unlink()


def test_a_damaged_run_is_named_as_what_was_asked_to_start_from(other):
    (other / "config.json").write_text("{")
    with pytest.raises(UserError, match="^--start_from=.*the config of the run"):
        start.expect_same_model(str(other), HERE)
    (other / "config.json").unlink()
    with pytest.raises(UserError, match="^--start_from=.*cannot be read"):
        start.expect_same_model(str(other), HERE)


def test_so_is_a_name_that_the_system_refuses():
    with pytest.raises(UserError, match="^--start_from=x.*File name too long"):
        start.expect_same_model(300 * "x", HERE)


@pytest.mark.parametrize("before", [None, 30])
def test_the_newest_weights_are_loaded_and_where_they_are_from_is_kept(
    other, capsys, before
):
    """Again by a run that was killed before its first checkpoint."""
    state = make_state(4)
    moments = arrays([state.m, state.v, state.step])
    found = start.load(str(other), state, before)
    assert found == {"start_from": str(other), "start_step": 30}
    said = capsys.readouterr().out
    assert said == f"Weights: those of {other} after 30 steps\n"
    expected = make_state(3, ema=True)
    np.testing.assert_equal(arrays(state.params), arrays(expected.average))
    np.testing.assert_equal(arrays([state.m, state.v, state.step]), moments)


def test_a_checkpoint_that_was_passed_over_is_said(other, capsys):
    save(other, make_state(5, ema=True), 45)
    (other / "ckpt-45.index").write_bytes(b"damaged")
    assert start.load(str(other), make_state(4), None)["start_step"] == 30
    notes = capsys.readouterr().out.splitlines()
    assert "Passed over" in notes[0] and notes[1].endswith("after 30 steps")
    for path in other.glob("ckpt-*"):
        path.unlink()
    with pytest.raises(UserError, match="^--start_from=.*expected a run to start from"):
        start.load(str(other), make_state(4), None)


def test_a_run_does_not_begin_again_with_other_weights_than_before(other):
    """The other run has gone on meanwhile."""
    save(other, make_state(5, ema=True), 45)
    with pytest.raises(
        UserError, match="after 30 steps, and its newest are now those after 45"
    ) as error:
        start.load(str(other), make_state(4), 30)
    assert str(error.value).startswith(f"--start_from={other}: ")


def test_weights_that_do_not_fit_are_refused(other):
    with pytest.raises(UserError, match="^--start_from=.*another model"):
        start.load(str(other), make_state(4, hidden=(9,)), None)
