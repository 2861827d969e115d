"""What a run's folder holds, who has it, and what is refused."""

import contextlib
import errno
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event, SessionLog

from core import consistency
from core import settings as settings_of
from core.errors import UserError
from core.run import checkpoint, config, files, metrics, program
from core.run.folder import NoFolder, RunFolder
from tests.run.states import arrays, make_state

DATA = {"name": "tiny", "sha256": "5e" * 32, "train_images": 300}  # 15 steps an epoch


PARTS = {"distortion": np.ones(2), "rate": np.ones(2)}  # of each of two images


def asked(path, **changes):
    """The settings of a run in this folder."""
    values = dict(run_dir=str(path), hidden_sizes=(8,), batch_size=20)
    values |= dict(beta=1.0, learning_rate=1e-3)
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
    settings = asked(folder.path, **changes)
    changed = consistency.changes(folder.past, settings)
    folder.begin(settings_of.values_of(settings), DATA, changed)
    return state


def train(folder, state, epochs):
    """Act as if these epochs had been trained."""
    for number in epochs:
        state.step.assign(15 * number)
        folder.add_epoch(epoch(number))
        folder.save(15 * number, seconds=0.5 * number)


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    path = tmp_path_factory.mktemp("two_epochs") / "run"
    with opened(path) as folder:
        train(folder, begin(folder), (1, 2))
    return path


@pytest.fixture
def run_dir(tmp_path, two_epochs):
    """The folder of a run of two epochs that has ended."""
    path = tmp_path / "run"
    shutil.copytree(two_epochs, path)
    recorded = config.read(path)
    recorded["flags"]["run_dir"] = str(path)
    config.write(path, recorded)
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
    versions = recorded["versions"]
    assert versions["tensorflow"] == tf.__version__
    assert versions["program"] == program.version()["sha256"][:12]
    assert versions["commit"] == program.version()["commit"]


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


def test_an_evaluation_that_was_done_is_found(run_dir):
    """By all that it is asked for; of a damaged file nothing is found."""
    of = {"step": 30, "images": 2, "nll": 5.0}
    records = [of | {"seed": n, "file": f"numbers/{n}.npz"} for n in (1, 2)]
    with opened(run_dir, mode="evaluate") as folder:
        folder.restore(make_state(0))
        assert folder.evaluated_before(records[0]) is None
        for record in records:
            folder.add_evaluation({"split": "test"} | record)
            numbers = {"log_p": np.array([-9.0, -record["seed"]])}
            for some in ({}, numbers, numbers | PARTS | {"rate": np.ones(3)}):
                files.write_arrays(run_dir / record["file"], some)
                assert folder.evaluated_before(record) is None
            files.write_arrays(run_dir / record["file"], numbers | PARTS)
        for record in records:
            found = folder.evaluated_before(record)
            assert found["log_p"].tolist() == [-9.0, -record["seed"]]
        for other in ({"seed": 3}, {"step": 15}, {"bfloat16": False}):
            assert folder.evaluated_before(records[0] | other) is None
        (run_dir / records[0]["file"]).unlink()
        assert folder.evaluated_before(records[0]) is None
        path = run_dir / "evaluations.jsonl"
        path.write_text("{\n" + path.read_text())
        assert folder.evaluated_before(records[1]) is None


def test_a_run_that_may_only_be_read_is_evaluated(run_dir, monkeypatch, capsys):
    """Training there is refused, for it would write."""
    before = content(run_dir)

    def forbidden(path, mode="r", **keywords):
        if set(mode) & set("aw+"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open(path, mode, **keywords)

    monkeypatch.setattr(files, "open", forbidden, raising=False)
    for mode in ("evaluate", "generate"):
        with opened(run_dir, mode=mode) as folder:
            folder.restore(make_state(0))
            assert folder.step == 30
        assert f"{run_dir} cannot be locked" in capsys.readouterr().out
    with pytest.raises(PermissionError):
        opened(run_dir)
    assert content(run_dir) == before


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
        state = begin(folder, epochs=99)
        assert folder.start == {"start_from": "x", "start_step": 9}
        train(folder, state, (3,))
    found = config.read(run_dir)
    assert found["flags"]["epochs"] == 99
    for name in ("start", "dataset"):
        assert found[name] == recorded[name]
    both = {"tensorflow": f"2.0.0, {tf.__version__}"}  # made it, one after the other
    assert found["versions"] == recorded["versions"] | both
    with opened(run_dir) as folder:
        train(folder, begin(folder, epochs=99), (4,))
    assert config.read(run_dir)["versions"] == found["versions"]


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


def test_what_a_run_may_change_is_said_where_it_goes_on(run_dir, capsys):
    """And written with the first weights that it made, not before."""
    with opened(run_dir) as folder:
        state = begin(folder, beta=4.0, learning_rate=0.01)
        said = capsys.readouterr().out
        assert "From here on, --beta was 1.0 and is 4.0.\n" in said
        assert "From here on, --learning_rate was 0.001 and is 0.01.\n" in said
        folder.save(30, seconds=1.0)  # stopped before it took a step
        assert config.read(run_dir)["flags"]["beta"] == 1.0
        train(folder, state, (3,))
    assert config.read(run_dir)["flags"]["beta"] == 4.0


FINISHED = [
    {"beta": 4.0},
    {"learning_rate": 0.01},
    {"beta": 4.0, "learning_rate": 0.01},
    {"num_samples": 2, "objective": "iwae"},
    {"clip_norm": 1.0},
    {"warmup_epochs": 1},
    {"epochs": 1, "free_bits": 0.1},
]


@pytest.mark.parametrize(
    "changes", FINISHED, ids=lambda changes: " ".join(sorted(changes))
)
def test_what_trains_nothing_changes_nothing(run_dir, capsys, changes):
    """config.json says what the weights were trained with."""
    before = content(run_dir)
    with opened(run_dir) as folder:
        with pytest.raises(UserError) as error:
            begin(folder, **{"epochs": 2} | changes)
    message = str(error.value)
    name = next(
        name for name in settings_of.FIELDS if name in changes and name != "epochs"
    )
    assert (
        f"{run_dir} is trained for 2 epochs" in message and f"--{name} was" in message
    )
    assert message.endswith("give more --epochs, or another --run_dir")
    assert len(message.replace(str(run_dir), "")) <= 200
    assert content(run_dir) == before and "From here on" not in capsys.readouterr().out
    with opened(run_dir) as folder:
        state = begin(folder, **changes | {"epochs": 3})  # with a step it is no matter
        train(folder, state, (3,))
    assert (
        config.read(run_dir)["flags"] | changes | {"epochs": 3}
        == (config.read(run_dir)["flags"])
    )


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_same_command_again_ends_well_and_changes_nothing(run_dir, capsys, epochs):
    before = content(run_dir)
    for changes in (
        {},
        {"keep_checkpoints": 5, "figures": False, "checkpoint_every": 9},
    ):
        with opened(run_dir, **changes) as folder:
            begin(folder, epochs=epochs, **changes)
            assert (folder.step, folder.epoch) == (30, 2)
            assert len(folder.history(("step",))) == 2
    after = content(run_dir)
    assert after == before and capsys.readouterr().out == ""


def test_a_run_that_was_killed_at_its_end_is_made_whole(run_dir):
    """Its last checkpoint was sealed, and TensorFlow's list not yet written."""
    (run_dir / "checkpoint").unlink()
    with opened(run_dir) as folder:
        begin(folder, epochs=2)
    assert tf.train.latest_checkpoint(str(run_dir)) == f"{run_dir}/ckpt-30"


@pytest.mark.parametrize("epochs", [2, 30])
def test_damaged_records_are_said_of_a_finished_run_too(run_dir, capsys, epochs):
    """Its learning curves are drawn with them."""
    history = run_dir / "metrics.jsonl"
    history.write_bytes(history.read_bytes().replace(b"0.5", b"0.6"))
    with opened(run_dir) as folder:
        begin(folder, epochs=epochs)
    assert "metrics.jsonl was changed or damaged" in capsys.readouterr().out


def test_a_run_has_its_config_before_anything_else(tmp_path, monkeypatch):
    """So that one that was killed at once is known for a run by what it left."""
    path, written = tmp_path / "run", []
    really = os.replace

    def replace(partial, name):
        really(partial, name)
        written.append(name.name)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(metrics, "append", lambda *a: written.append("append"))
    with opened(path) as folder:
        train(folder, begin(folder), ())
    assert written[:2] == ["config.json", "metrics.jsonl"] and len(written) > 3


@pytest.mark.parametrize("number", range(6))
def test_a_run_that_was_killed_while_it_began_begins_again(
    tmp_path, monkeypatch, number
):
    """After whichever of the files that it writes."""
    path, left = tmp_path / "run", [number]
    really = os.replace

    def replace(*names):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        really(*names)

    monkeypatch.setattr(os, "replace", replace)
    with contextlib.suppress(KeyboardInterrupt), opened(path) as folder:
        begin(folder)
    monkeypatch.undo()
    for mode in ("evaluate", "generate"):
        with contextlib.suppress(UserError), opened(path, mode=mode) as folder:
            folder.restore(make_state(0))
    with opened(path) as folder:
        train(folder, begin(folder), (1,))
    assert checkpoint.newest(path) == (15, [])
    assert config.read(path)["dataset"] == DATA


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_another_program_is_said_to_be_one(run_dir, monkeypatch, capsys, mode):
    """And what a run was begun with is kept."""
    recorded = (run_dir / "config.json").read_bytes()
    other = {"sha256": "ab" * 32, "commit": ""}
    monkeypatch.setattr(program, "version", lambda: other)
    with opened(run_dir, mode=mode) as folder:
        folder.restore(make_state(0))
    began = program_of(recorded)
    (line,) = capsys.readouterr().out.splitlines()
    assert f"begun with the program {began}: with {'ab' * 6} it goes on" in line
    assert "equal bits are promised for the same alone" in line
    if mode == "train":
        with opened(run_dir) as folder:
            begin(folder)
        assert program_of((run_dir / "config.json").read_bytes()) == began


def program_of(content):
    return json.loads(content)["versions"]["program"]


def test_a_run_of_an_unknown_program_goes_on(run_dir, capsys):
    """As the first of this format did not name theirs."""
    recorded = config.read(run_dir)
    del recorded["versions"]["program"], recorded["versions"]["commit"]
    config.write(run_dir, recorded)
    with opened(run_dir) as folder:
        train(folder, begin(folder), (3,))
        assert folder.epoch == 3
    assert "the program" in capsys.readouterr().out


def test_a_program_that_is_committed_only_is_the_same(run_dir, monkeypatch, capsys):
    same = program.version() | {"commit": "c0" * 20}
    monkeypatch.setattr(program, "version", lambda: same)
    with opened(run_dir) as folder:
        begin(folder)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("saved, step", [(True, 30), (False, 15)])
def test_tensorboard_is_told_from_which_step_on_it_is_trained_again(
    run_dir, saved, step
):
    if not saved:
        (run_dir / "ckpt-30.index").write_bytes(b"damaged")
    there = set(run_dir.glob("events.*"))
    with opened(run_dir) as folder:
        train(folder, begin(folder), range(step // 15 + 1, 4))
    (path,) = set(run_dir.glob("events.*")) - there
    events = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    _, start, *added = map(Event.FromString, events)
    assert (start.session_log.status, start.step) == (SessionLog.START, step + 1)
    assert [event.step for event in added] == list(range(step + 15, 46, 15))
    assert max(there) < path  # it is read after them


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
    assert "begun with TensorFlow 2.0.0: with" in output
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


LOST = {  # what happens to a folder that a process trains in
    "moved": lambda path: path.rename(path.with_name("elsewhere")),
    "removed": shutil.rmtree,
    "another": lambda path: [shutil.rmtree(path), path.mkdir()],
    "unlocked": lambda path: (path / ".lock").unlink(),
    "locked anew": lambda path: [
        (path / ".lock").rename(path / "mine"),
        (path / ".lock").write_text(""),
    ],
    "no config": lambda path: (path / "config.json").unlink(),
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("what", ["save", "epoch", "evaluation"])
def test_a_folder_that_is_lost_while_it_is_open_is_not_made_anew(
    tmp_path, run_dir, how, what
):
    """Half of a run here, and half of it there, would be none."""
    for path in (run_dir, tmp_path / "new"):
        with opened(path, epochs=9) as folder:
            train(folder, begin(folder, epochs=9), (3,))
            LOST[how](path)
            before = sorted(tmp_path.rglob("*"))
            does = {
                "save": lambda folder: folder.save(60, 0.5),
                "epoch": lambda folder: folder.add_epoch(epoch(4)),
                "evaluation": lambda folder: folder.add_evaluation({"split": "test"}),
            }
            with pytest.raises(UserError, match="was moved, removed.*: put it back"):
                does[what](folder)
            assert sorted(tmp_path.rglob("*")) == before
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("when", ["restore", "begin"])
def test_a_folder_that_is_lost_before_it_is_read_is_not_made_anew(
    tmp_path, run_dir, how, when
):
    """With weights that nobody has trained."""
    state = make_state(0)
    with opened(run_dir, epochs=9) as folder:
        if when == "begin":
            folder.restore(state)
        LOST[how](run_dir)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError, match="was moved, removed.*: put it back"):
            if when == "restore":
                folder.restore(state)
            folder.begin(settings_of.values_of(asked(run_dir, epochs=9)), DATA, [])
        assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_was_put_back_goes_on(tmp_path):
    path = tmp_path / "run"
    with opened(path) as folder:
        state = begin(folder)
        path.rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").rename(path)
        train(folder, state, (1,))
    assert checkpoint.steps_on_disk(path) == [15, 0]


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


FOREIGN = {  # what may be in somebody's folder
    "weights": ["checkpoint", "model-900.data-00000-of-00001", "figures/samples.png"],
    "our names": ["checkpoint", "ckpt-9.index", "ckpt-9.data-00000-of-00001"],
    "a seal": ["ckpt-9.json"],
    "metrics": ["metrics.jsonl"],
    "evaluations": ["evaluations.jsonl"],
    "events": ["events.out.tfevents.1.host.2.v2"],
    "config": ["config.json"],
    "config and weights": ["config.json", "pytorch_model.bin"],
    "config and checkpoint": ["config.json", "ckpt-9.index"],
    "a program": ["loop.py", ".git/HEAD"],
    "a folder": ["photos/1.png"],
    "partial": ["checkpoint.partial", "ckpt-9.json.partial"],
    "notes": ["config.txt"],
}


@pytest.mark.parametrize("mode", ["train", "evaluate", "generate"])
@pytest.mark.parametrize("names", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_of_something_else_is_left_alone(tmp_path, names, mode):
    """Not a byte of it changes, and nothing is added: no lock either."""
    path = tmp_path / "theirs"
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text('{"model_type": "bert"}\n')
    before = sorted(path.rglob("*")), content(path)
    with pytest.raises(UserError, match="choose another") as error:
        opened(path, mode=mode)
    assert str(path) in str(error.value)
    assert len(str(error.value).replace(str(path), "")) <= 200
    assert (sorted(path.rglob("*")), content(path)) == before


def test_what_a_foreign_folder_holds_is_named(tmp_path):
    for name in "dcba":
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"something else \(a, b, c\): choose another"):
        opened(tmp_path)


NO_RUN = {  # what may be in a folder that a run begins in
    "nothing": [],
    "hidden": [".gitkeep", ".DS_Store"],
    "killed": [".lock"],
    "killed while it wrote": [".lock", "config.json.partial"],
}


@pytest.mark.parametrize("names", NO_RUN.values(), ids=NO_RUN)
def test_a_run_begins_in_a_folder_of_nothing(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("x")
    with opened(tmp_path) as folder:
        begin(folder)
    assert checkpoint.newest(tmp_path) == (0, [])
    assert not (tmp_path / "config.json.partial").exists()


def test_a_user_may_keep_things_beside_a_run(run_dir):
    (run_dir / "notes.txt").write_text("mine")
    (run_dir / "plots").mkdir()
    with opened(run_dir) as folder:
        train(folder, begin(folder), (3,))
    assert (run_dir / "notes.txt").read_text() == "mine"


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
    with pytest.raises(UserError, match="loop.py '--run_dir=.*/a run', or"):
        opened(tmp_path / "a run", **changes)


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


def test_a_run_in_memory_cannot_be_lost():
    assert NoFolder().expect_there() is None


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
