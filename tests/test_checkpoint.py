import numpy as np
import pytest
import tensorflow as tf

from core import adam, checkpoint, step, vae


def make_state(seed, hidden=(8,)):
    """A state that has taken one step along made-up gradients."""
    state = step.init_state(vae.init(seed, hidden, 2))
    grads = [tf.ones_like(p) * (seed + 1) for p in tf.nest.flatten(state.params)]
    arguments = (state.params, grads, state.m, state.v, state.step)
    adam.apply(*arguments, 0.01, 0.9, 0.999, 1e-8)
    state.totals.assign([1.0, 2.0, 3.0, float(seed)])
    state.seconds.assign(seed)
    return state


def test_everything_comes_back(tmp_path):
    saved, other = make_state(3), make_state(4)
    checkpoint.save(checkpoint.make_manager(saved, tmp_path, 3), 1)
    manager = checkpoint.make_manager(other, tmp_path, 3)
    assert checkpoint.latest_step(manager) == 1
    checkpoint.restore(manager)
    flat = tf.nest.flatten(saved._asdict())
    assert len(flat) == 3 * 8 + 3
    for a, b in zip(flat, tf.nest.flatten(other._asdict()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("hidden", [(9,), (8, 8)])
def test_another_model_is_refused(tmp_path, hidden):
    checkpoint.save(checkpoint.make_manager(make_state(0), tmp_path, 3), 1)
    manager = checkpoint.make_manager(make_state(0, hidden), tmp_path, 3)
    with pytest.raises(ValueError, match="ckpt-1: cannot be restored"):
        checkpoint.restore(manager)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    checkpoint.save(checkpoint.make_manager(make_state(0), tmp_path, 3), 1)
    data = tmp_path / "ckpt-1.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(ValueError, match="cannot be restored"):
        checkpoint.restore(checkpoint.make_manager(make_state(0), tmp_path, 3))


def test_only_the_newest_are_kept_and_none_is_saved_twice(tmp_path):
    manager = checkpoint.make_manager(make_state(0), tmp_path, 2)
    assert checkpoint.latest_step(manager) is None
    for number in (10, 20, 30):
        checkpoint.save(manager, number)
    index = tmp_path / "ckpt-30.index"
    written = index.stat().st_mtime_ns
    checkpoint.save(manager, 30)
    assert index.stat().st_mtime_ns == written
    assert sorted(p.name for p in tmp_path.glob("*.index")) == [
        "ckpt-20.index",
        "ckpt-30.index",
    ]


def test_config_comes_back(tmp_path):
    assert checkpoint.read_config(tmp_path) is None
    config = {"flags": {"epochs": 3}, "dataset": {}, "versions": {}}
    checkpoint.write_config(tmp_path / "run", config)
    assert checkpoint.read_config(tmp_path / "run") == config
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"flags": {}}', "\x00"])
def test_a_damaged_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json: expected the config of a run"):
        checkpoint.read_config(tmp_path)
