"""What a run's folder holds, who has it, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from core import settings as settings_of
from core.errors import UserError
from core.run import checkpoint, config, files, metrics
from core.run.folder import NoFolder, RunFolder
from tests.run.states import arrays, make_state

DATA = {"name": "tiny", "sha256": "5e" * 32, "train_images": 300}  # 15 steps an epoch


def asked(path, **changes):
    """The settings of a run in this folder."""
    values = dict(run_dir=str(path), hidden_sizes=(8,), batch_size=20)
    return settings_of.of_values(values | changes)


def opened(path, **changes):
    return RunFolder(asked(path, **changes).run)


def epoch(number):
    return {"epoch": number, "step": 15 * number, "train_loss": 1 / number}


def begin(folder, state=None, **changes):
    """Restore, and make ready, with the settings of `asked`."""
    state = state or make_state(0)
    state.step.assign(0)
    folder.restore(state)
    folder.begin(settings_of.values_of(asked(folder.path, **changes)), DATA)
    return state


def train(folder, state, epochs):
    """Act as if these epochs had been trained."""
    for number in epochs:
        state.step.assign(15 * number)
        folder.add_epoch(epoch(number))
        folder.save(15 * number, seconds=0.5 * number)


@pytest.fixture
def run_dir(tmp_path):
    """The folder of a run of two epochs that has ended."""
    path = tmp_path / "run"
    with opened(path) as folder:
        train(folder, begin(folder), (1, 2))
    return path


def content(path):
    return {
        file.relative_to(path): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != files.LOCK
    }


# --- What it holds --------------------------------------------------------------------


def test_a_new_folder_is_made_when_a_run_begins(tmp_path):
    path = tmp_path / "deep" / "run"
    with opened(path) as folder:
        assert (folder.past, folder.recorded, folder.start) == (None, None, {})
        assert folder.seconds == 0
        folder.restore(make_state(0))
        assert not path.parent.exists()
        begin(folder)
        assert folder.step == folder.epoch == 0
    assert checkpoint.steps_on_disk(path) == [0]
    assert metrics.read(path / "metrics.jsonl") == []
    recorded = config.read(path)
    assert recorded["flags"] == json.loads(
        json.dumps(settings_of.values_of(asked(path)))
    )
    assert recorded["dataset"] == DATA and recorded["start"] == {}
    assert recorded["versions"]["tensorflow"] == tf.__version__


def test_everything_of_a_run_comes_back(run_dir, capsys):
    state = make_state(7)
    with opened(run_dir) as folder:
        assert folder.past == asked(run_dir)
        folder.restore(state)
        assert (folder.step, folder.epoch, folder.seconds) == (30, 2, 1.0)
        assert folder.history(("step",)) == [epoch(1), epoch(2)]
    expected = make_state(0)
    np.testing.assert_equal(arrays(state.params), arrays(expected.params))
    np.testing.assert_equal(arrays(state.v), arrays(expected.v))
    assert capsys.readouterr().out == ""


def test_only_training_writes(run_dir):
    before = content(run_dir)
    for mode in ("train", "evaluate", "generate"):
        with opened(run_dir, mode=mode) as folder:
            folder.restore(make_state(0))
    assert content(run_dir) == before


def test_records_are_lines_and_scalars(run_dir):
    before = len(list(run_dir.glob("events.out.tfevents.*")))
    record = {"split": "test", "epoch": 2, "step": 30, "nll": 91.25}
    with opened(run_dir, mode="evaluate") as folder:
        folder.restore(make_state(0))
        folder.add_evaluation(record)
        folder.add_evaluation(record)
    assert metrics.read(run_dir / "evaluations.jsonl") == [record, record]
    assert before == 1
    written = b"".join(p.read_bytes() for p in run_dir.glob("events.out.tfevents.*"))
    assert b"test/nll" in written and b"epoch/train_loss" in written


@pytest.mark.parametrize("keep", [1, 2])
def test_as_many_checkpoints_are_kept_as_were_asked_for(tmp_path, keep):
    with opened(tmp_path / "run", keep_checkpoints=keep) as folder:
        train(folder, begin(folder), (1, 2, 3))
    assert checkpoint.steps_on_disk(tmp_path / "run") == [45, 30, 15][:keep]


# --- Going on -------------------------------------------------------------------------


def test_what_was_recorded_after_the_last_checkpoint_is_trained_again(run_dir):
    """A killed run may have got further than what it saved."""
    metrics.append(run_dir / "metrics.jsonl", epoch(3))
    with opened(run_dir) as folder:
        folder.restore(make_state(0))
        assert folder.history(("step",)) == [epoch(1), epoch(2)]
        state = begin(folder)
        assert metrics.read(folder.metrics) == [epoch(1), epoch(2)]
        train(folder, state, (3,))
    assert len(metrics.read(run_dir / "metrics.jsonl")) == 3


def test_what_a_killed_process_was_writing_is_removed_by_training_alone(run_dir):
    partial = run_dir / "ckpt-45.json.partial"
    partial.write_text("x")
    with opened(run_dir, mode="evaluate") as folder:
        folder.restore(make_state(0))
    assert partial.exists()
    with opened(run_dir) as folder:
        begin(folder)
    assert not partial.exists()


def test_what_a_run_was_begun_with_stays_and_its_flags_are_the_last_ones(run_dir):
    recorded = config.read(run_dir)
    recorded["versions"]["tensorflow"] = "2.0.0"
    recorded["start"] = {"start_from": "x", "start_step": 9}
    config.write(run_dir, recorded)
    with opened(run_dir) as folder:
        begin(folder, epochs=99)
        assert folder.start == {"start_from": "x", "start_step": 9}
    found = config.read(run_dir)
    assert found["flags"]["epochs"] == 99
    for name in ("versions", "start", "dataset"):
        assert found[name] == recorded[name]


def test_a_damaged_first_checkpoint_begins_the_run_anew(tmp_path):
    """With the versions of now, for there is nothing that others had made."""
    path = tmp_path / "run"
    with opened(path) as folder:
        begin(folder)
    recorded = config.read(path)
    recorded["versions"]["tensorflow"] = "2.0.0"
    config.write(path, recorded)
    (path / "ckpt-0.index").write_bytes(b"damaged")
    with opened(path) as folder:
        begin(folder)
        assert folder.step == 0
    assert config.read(path)["versions"]["tensorflow"] == tf.__version__
    assert checkpoint.newest(path) == (0, [])


def test_what_is_no_longer_promised_or_there_is_said(run_dir, capsys):
    recorded = config.read(run_dir)
    recorded["versions"]["tensorflow"] = "2.0.0"
    config.write(run_dir, recorded)
    history = run_dir / "metrics.jsonl"
    whole = history.read_bytes()
    history.write_bytes(whole[:-9])
    with opened(run_dir) as folder:
        begin(folder)
    output = capsys.readouterr().out
    assert "begun with TensorFlow 2.0.0: under" in output
    assert "metrics.jsonl holds 1 of the 2 epochs' records" in output
    history.write_bytes(whole.replace(b"0.5", b"0.6"))
    with opened(run_dir) as folder:
        begin(folder)
    assert "metrics.jsonl was changed or damaged" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_said_to_be_passed_over(run_dir, capsys):
    (run_dir / "ckpt-30.index").write_bytes(b"damaged")
    with opened(run_dir) as folder:
        folder.restore(make_state(0))
        assert (folder.step, folder.seconds) == (15, 0.5)
        assert "The checkpoint of step 15 is kept" in folder.how_to_go_on()
    assert "Passed over" in capsys.readouterr().out


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_how_to_go_on_is_a_command(tmp_path, monkeypatch, resume):
    monkeypatch.setattr(sys, "argv", ["loop.py", "--learning_rate=1", "--epochs=3"])
    with opened(tmp_path / "run", resume=resume) as folder:
        train(folder, begin(folder), (1,))
        found = folder.how_to_go_on("--learning_rate=0.1")
    again = "--resume=auto " if resume == "never" else ""
    assert found == (
        "The checkpoint of step 15 is kept; go on from it with: "
        f"{sys.executable} loop.py --epochs=3 {again}--learning_rate=0.1"
    )


# --- Who has it -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "evaluate", "generate"])
def test_a_folder_in_use_is_refused(run_dir, mode):
    with opened(run_dir):
        with pytest.raises(UserError, match=r"in use by process \d+"):
            opened(run_dir, mode=mode)
    opened(run_dir, mode=mode).close()


def test_a_new_run_has_its_folder_from_its_beginning_on(tmp_path):
    path = tmp_path / "run"
    with opened(path) as folder:
        begin(folder)
        with pytest.raises(UserError, match="in use"):
            opened(path)
    opened(path).close()


def test_a_run_that_is_refused_lets_go_of_the_folder(run_dir):
    before = (run_dir / "config.json").read_bytes()
    (run_dir / "config.json").write_text("{")
    with pytest.raises(UserError, match="expected the config of the run"):
        opened(run_dir)
    (run_dir / "config.json").write_bytes(before)
    opened(run_dir).close()


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_that_was_begun_meanwhile_is_left_alone(tmp_path, ended):
    """Two start on a new folder; the one that loads its data faster has it."""
    path = tmp_path / "run"
    with opened(path) as slow, opened(path) as fast:
        train(fast, begin(fast), (1,))
        if ended:
            fast.close()
        before = content(path)
        with pytest.raises(UserError, match="began a run there" if ended else "in use"):
            begin(slow)
    assert content(path) == before


# --- Refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"resume": "required"}, {"mode": "evaluate"}, {"mode": "generate"}],
    ids=lambda changes: "-".join(changes.values()),
)
@pytest.mark.parametrize("there", [False, True])
def test_what_needs_a_run_is_refused_without_one(tmp_path, changes, there):
    """And leaves nothing in a folder of something else."""
    path = tmp_path / "run"
    if there:
        path.mkdir()
    with pytest.raises(UserError, match="expected a run to go on from.*python loop.py"):
        opened(path, **changes)
    assert list(tmp_path.rglob("*")) == [path] * there


def test_a_run_that_never_resumes_is_refused_a_run(run_dir):
    with pytest.raises(UserError, match="of 30 steps, and --resume=never does not"):
        opened(run_dir, resume="never")
    opened(run_dir, resume="never", mode="evaluate").close()
    opened(run_dir, resume="required").close()


@pytest.mark.parametrize("mode", ["train", "evaluate", "generate"])
def test_lost_checkpoints_are_not_trained_over(run_dir, mode):
    for path in run_dir.glob("ckpt-*"):
        path.unlink()
    before = content(run_dir)
    with pytest.raises(UserError, match="none of its checkpoints: put them back"):
        opened(run_dir, mode=mode)
    assert content(run_dir) == before


def test_flags_of_no_run_are_refused(run_dir):
    recorded = config.read(run_dir)
    for name, value in (("epochs", 0), ("epochs", "x"), ("warp", 1)):
        flags = recorded["flags"] | {name: value}
        config.write(run_dir, recorded | {"flags": flags})
        with pytest.raises(UserError, match=f"expected the flags of a run.*{name}"):
            opened(run_dir)


def test_a_run_on_other_data_is_refused(run_dir):
    with opened(run_dir) as folder:
        folder.expect_data(DATA | {"name": "tiny, moved"})
        with pytest.raises(UserError, match="other data .tiny, not this large.: use"):
            folder.expect_data({"name": "large", "sha256": "0" * 64})
    with opened(run_dir.with_name("new")) as folder:
        folder.expect_data({"name": "large", "sha256": "0" * 64})


@pytest.mark.parametrize(
    ("recorded", "dataset", "expected"),
    [
        ("synthetic", "auto", "synthetic"),
        ("mnist", "auto", "mnist"),
        ("synthetic", "mnist", "mnist"),  # which will be refused as other data
        ("tiny", "auto", "auto"),  # a folder's name
    ],
)
def test_auto_is_what_the_run_was_begun_with(run_dir, recorded, dataset, expected):
    found = config.read(run_dir)
    found["dataset"]["name"] = recorded
    config.write(run_dir, found)
    settings = settings_of.Data(dataset=dataset, validation_size=7)
    with opened(run_dir) as folder:
        data_settings = folder.data_settings(settings)
    assert data_settings == settings_of.Data(dataset=expected, validation_size=7)
    with opened(run_dir.with_name("new")) as folder:
        assert folder.data_settings(settings) == settings


# --- Starting from another run --------------------------------------------------------


def started(run_dir):
    """The settings of a new run that starts from that one."""
    return dict(path=run_dir.with_name("new"), start_from=str(run_dir))


def test_a_run_starts_from_the_weights_of_another(run_dir, capsys):
    where = started(run_dir)
    state = make_state(4)
    with opened(**where) as folder:
        folder.expect_start(settings_of.Model(hidden_sizes=(8,)))
        begin(folder, state, start_from=where["start_from"])
        assert folder.start == {"start_from": str(run_dir), "start_step": 30}
        assert folder.step == 0
    np.testing.assert_equal(arrays(state.params), arrays(make_state(0).params))
    assert config.read(where["path"])["start"] == folder.start
    assert f"Weights: those of {run_dir} after 30 steps" in capsys.readouterr().out
    with opened(**where) as folder:  # what it started from may be gone by now
        run_dir.rename(run_dir.with_name("moved"))
        folder.expect_start(settings_of.Model(hidden_sizes=(9,)))
        again = begin(folder, make_state(5), start_from=where["start_from"])
        np.testing.assert_equal(arrays(again.params), arrays(state.params))
        assert folder.start["start_step"] == 30
    assert "Weights:" not in capsys.readouterr().out


def test_a_run_starts_from_no_other_model(run_dir):
    with opened(**started(run_dir)) as folder:
        with pytest.raises(UserError, match=r"--hidden_sizes \(the run: 8, now: 9\)"):
            folder.expect_start(settings_of.Model(hidden_sizes=(9,)))
    assert not folder.path.exists()


def test_a_run_that_was_killed_at_once_starts_with_the_same_weights(run_dir):
    """Or not at all, if the other run has gone on meanwhile."""
    where = started(run_dir)
    with opened(**where) as folder, pytest.MonkeyPatch.context() as context:
        context.setattr(checkpoint, "save", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            begin(folder, start_from=where["start_from"])
    with opened(run_dir) as folder:
        train(folder, begin(folder), (3,))
    with opened(**where) as folder:
        with pytest.raises(UserError, match="after 30 steps, and its newest are now"):
            begin(folder, start_from=where["start_from"])


# --- No folder ------------------------------------------------------------------------


def test_a_run_in_memory_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = NoFolder()
    folder.add_epoch(epoch(1))
    folder.save(15, 1.0)
    assert not list(Path().iterdir()) and folder.seconds == 0
    assert folder.how_to_go_on("--learning_rate=0.1").startswith("Train again")
    assert "--learning_rate=0.1" in folder.how_to_go_on("--learning_rate=0.1")


def test_training_asks_nothing_of_a_folder_that_memory_does_not_have(run_dir):
    with opened(run_dir) as folder:
        for name in ("path", "seconds", "add_epoch", "save", "how_to_go_on"):
            assert callable(getattr(folder, name)) == callable(getattr(NoFolder, name))
