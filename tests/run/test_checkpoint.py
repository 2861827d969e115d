import errno
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from core.errors import UserError
from core.run import checkpoint, files
from tests.run.states import arrays, make_state


def save(state, folder, number, keep=3, seconds=1.5):
    checkpoint.save(checkpoint.make_saver(state), folder, number, keep, seconds)


def test_everything_comes_back(tmp_path, capsys):
    saved, other = make_state(3, ema=True), make_state(4, ema=True)
    save(saved, tmp_path, 1)
    saver = checkpoint.make_saver(other)
    assert checkpoint.restore(saver, tmp_path) == 1
    assert capsys.readouterr().out == ""  # nothing was passed over
    flat = tf.nest.flatten(saved._asdict())
    assert len(flat) == 4 * 8 + 2
    for a, b in zip(flat, tf.nest.flatten(other._asdict()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("hidden", [(9,), (8, 8)])
def test_another_model_is_refused(tmp_path, hidden):
    save(make_state(0), tmp_path, 1)
    saver = checkpoint.make_saver(make_state(0, hidden))
    with pytest.raises(UserError, match="ckpt-1 cannot be restored.*another model"):
        checkpoint.restore(saver, tmp_path)


@pytest.mark.parametrize("saved", [False, True])
def test_a_state_with_an_average_is_not_one_without(tmp_path, saved):
    """No part of a checkpoint is left over, and no part of a state as it was."""
    save(make_state(0, ema=saved), tmp_path, 1)
    saver = checkpoint.make_saver(make_state(0, ema=not saved))
    with pytest.raises(UserError, match="ckpt-1 cannot be restored.*another model"):
        checkpoint.restore(saver, tmp_path)


def test_what_a_run_needs_beside_its_numbers_is_sealed_with_them(tmp_path):
    """The time of the epoch so far, and the records as they were then."""
    save(make_state(0), tmp_path, 1, seconds=0.25)
    seal = checkpoint.read_seal(tmp_path, 1)
    assert seal["seconds"] == 0.25 and seal["metrics"] == ""
    digests = {
        path.name: files.sha256(path)
        for path in tmp_path.glob("ckpt-1.*")
        if path.suffix != ".json"
    }
    assert len(digests) == 2 and seal["files"] == digests
    (tmp_path / checkpoint.METRICS).write_text("records")
    save(make_state(0), tmp_path, 2, seconds=7.0)
    seal = checkpoint.read_seal(tmp_path, 2)
    assert seal["seconds"] == 7.0
    assert seal["metrics"] == files.sha256(tmp_path / checkpoint.METRICS)


def test_what_cannot_be_written_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="ckpt-5 cannot be written") as error:
        save(make_state(0), tmp_path / "file", 5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("end", ["", " [Op:SaveV2]", "\nmore [Op:SaveV2]"])
@pytest.mark.parametrize("name", "ENOSPC EDQUOT EACCES EROFS EPERM EFBIG".split())
def test_what_the_system_said_to_tensorflow_is_its_error(
    tmp_path, monkeypatch, name, end
):
    """By the number of which a user is told what to do."""
    saver, number = checkpoint.make_saver(make_state(0)), getattr(errno, name)

    def write(path):
        message = (
            f"{{{{function_node __wrapped__SaveV2}}}} {path}; {os.strerror(number)}"
        )
        raise tf.errors.UnknownError(None, None, f"{message}{end}")

    monkeypatch.setattr(saver, "write", write)
    with pytest.raises(OSError, match="ckpt-5 cannot be written") as error:
        checkpoint.save(saver, tmp_path, 5, 3, 0.0)
    assert error.value.errno == number and os.strerror(number) in str(error.value)


@pytest.mark.parametrize("whole", [False, True])
def test_a_checkpoint_without_its_seal_may_be_a_copy(tmp_path, whole):
    """What is missing is said; who lost it, nobody knows."""
    save(make_state(1), tmp_path, 10)
    save(make_state(2), tmp_path, 20)
    (tmp_path / "ckpt-20.json").unlink()
    if not whole:
        (tmp_path / "ckpt-20.index").unlink()
    found, (note,) = checkpoint.newest(tmp_path)
    assert found == 10 and f"Passed over {tmp_path}/ckpt-20: ckpt-20.json is " in note
    assert "missing" in note and "copied without" in note
    (tmp_path / "ckpt-10.json").unlink()
    with pytest.raises(UserError, match="ckpt-10.json is missing.*Put one back"):
        checkpoint.newest(tmp_path)


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    saver = checkpoint.make_saver(make_state(0))
    assert checkpoint.restore(saver, tmp_path) is None


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_only_weights_are_started_from(tmp_path, there, here):
    """The average where the other run keeps one; it also begins the new average."""
    other = make_state(3, ema=there)
    save(other, tmp_path, 7)
    state = make_state(4, ema=here)
    kept = arrays([state.m, state.v, state.step, state.totals])
    copies = filter(None, (state.params, state.average))
    assert checkpoint.start_from(tmp_path, *copies) == 7
    np.testing.assert_equal(arrays(state.params), arrays(other.weights))
    np.testing.assert_equal(arrays(state.weights), arrays(other.weights))
    np.testing.assert_equal(arrays([state.m, state.v, state.step, state.totals]), kept)


@pytest.mark.parametrize("hidden", [(9,), (8, 8)])
def test_another_models_weights_are_refused(tmp_path, hidden):
    save(make_state(0), tmp_path, 1)
    with pytest.raises(UserError, match="ckpt-1 cannot be restored.*another model"):
        checkpoint.start_from(tmp_path, make_state(0, hidden).params)
    assert checkpoint.start_from(tmp_path / "nowhere", make_state(0).params) is None


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "flipped": flip,
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "emptied": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001", "json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, capsys, damage, ending):
    old = make_state(1)
    save(old, tmp_path, 10)
    save(make_state(2), tmp_path, 20)
    DAMAGES[damage](tmp_path / f"ckpt-20.{ending}")
    state = make_state(3)
    saver = checkpoint.make_saver(state)
    assert checkpoint.restore(saver, tmp_path) == 10
    (note,) = capsys.readouterr().out.splitlines()
    assert "Passed over" in note and "ckpt-20" in note
    assert float(state.totals[3]) == 1
    # What is saved from there replaces it.
    checkpoint.save(saver, tmp_path, 20, 3, 0.0)
    assert checkpoint.restore(saver, tmp_path) == 20 and not capsys.readouterr().out
    DAMAGES[damage](tmp_path / f"ckpt-20.{ending}")
    DAMAGES[damage](tmp_path / f"ckpt-10.{ending}")
    with pytest.raises(UserError, match="no checkpoint can be used. Passed over"):
        checkpoint.restore(checkpoint.make_saver(state), tmp_path)


def test_a_checkpoint_that_goes_while_it_is_read_is_not_of_another_model(
    tmp_path, monkeypatch
):
    """Who trains there keeps the newest alone."""
    save(make_state(1), tmp_path, 10)
    newest, trainer = checkpoint.newest, iter([20, None])

    def newest_and_then(folder):
        found = newest(folder)
        if step := next(trainer):
            save(make_state(2), folder, step, keep=1)
        return found

    monkeypatch.setattr(checkpoint, "newest", newest_and_then)
    state = make_state(3)
    assert checkpoint.restore(checkpoint.make_saver(state), tmp_path) == 20
    assert float(state.totals[3]) == 2


def test_a_reader_looks_again_if_the_only_whole_checkpoint_goes(tmp_path, monkeypatch):
    """While the next, which it has just seen unsealed, is sealed."""
    save(make_state(1), tmp_path, 10)
    save(make_state(2), tmp_path, 20)
    seal = (tmp_path / "ckpt-20.json").read_bytes()
    (tmp_path / "ckpt-20.json").unlink()
    damage, looks = checkpoint._damage, iter([20, 10])

    def looked(folder, step):
        found = damage(folder, step)
        if next(looks, 0) == 20:
            (tmp_path / "ckpt-20.json").write_bytes(seal)
            for path in tmp_path.glob("ckpt-10.*"):
                path.unlink()
        return found

    monkeypatch.setattr(checkpoint, "_damage", looked)
    assert checkpoint.newest(tmp_path) == (20, [])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_of_no_steps_loses_nothing_by_a_damaged_checkpoint(
    tmp_path, capsys, damage
):
    """It begins anew, where another would be refused."""
    save(make_state(1), tmp_path, 0)
    DAMAGES[damage](tmp_path / "ckpt-0.data-00000-of-00001")
    state = make_state(2)
    before = arrays(state)
    assert checkpoint.restore(checkpoint.make_saver(state), tmp_path) is None
    assert "Passed over" in (said := capsys.readouterr().out) and "ckpt-0" in said
    np.testing.assert_equal(arrays(state), before)


NO_SEALS = "[] {} x {'files':{}} {'files':[1]} {'files':{'ckpt-20.index':1}}".split()


@pytest.mark.parametrize("content", NO_SEALS)
def test_a_seal_that_seals_nothing_is_damage(tmp_path, content):
    save(make_state(1), tmp_path, 10)
    save(make_state(2), tmp_path, 20)
    (tmp_path / "ckpt-20.json").write_text(content.replace("'", '"'))
    found, (note,) = checkpoint.newest(tmp_path)
    assert found == 10 and "ckpt-20" in note


@pytest.mark.parametrize("change", [{"seconds": None}, {"seconds": "x"}, {}], ids=str)
def test_a_seal_without_its_seconds_is_damage(tmp_path, change):
    save(make_state(1), tmp_path, 10)
    save(make_state(2), tmp_path, 20)
    seal = checkpoint.read_seal(tmp_path, 20)
    del seal["seconds"]
    (tmp_path / "ckpt-20.json").write_text(json.dumps(seal | change))
    found, (note,) = checkpoint.newest(tmp_path)
    assert found == 10 and "ckpt-20" in note


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_checkpoint_that_cannot_be_read_is_not_damaged(tmp_path, monkeypatch, number):
    """It may be whole: training would delete what it passed over."""
    save(make_state(1), tmp_path, 10)
    save(make_state(2), tmp_path, 20)
    plain = files.sha256

    def sha256(path):
        if path.name == "ckpt-20.index":
            raise OSError(number, os.strerror(number), str(path))
        return plain(path)

    monkeypatch.setattr(files, "sha256", sha256)
    with pytest.raises(OSError, match="ckpt-20.index") as error:
        checkpoint.newest(tmp_path)
    assert error.value.errno == number


def test_the_digest_of_a_step_is_that_of_its_weights(tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        save(make_state(seed), tmp_path / folder, 10)
    a, b, c = (checkpoint.digest(tmp_path / folder, 10) for folder in "abc")
    assert a == b != c and len(a) == 12


@pytest.mark.parametrize("damage", DAMAGES)
def test_tensorflows_own_list_is_not_needed(tmp_path, capsys, damage):
    save(make_state(1), tmp_path, 10)
    DAMAGES[damage](tmp_path / "checkpoint")
    saver = checkpoint.make_saver(make_state(2))
    assert checkpoint.restore(saver, tmp_path) == 10 and not capsys.readouterr().out


def test_only_the_newest_are_kept_and_none_is_saved_twice(tmp_path):
    saver = checkpoint.make_saver(make_state(0))
    for number in (10, 20, 30):
        checkpoint.save(saver, tmp_path, number, 2, 0.0)
    written = (tmp_path / "ckpt-30.index").stat().st_mtime_ns
    checkpoint.save(saver, tmp_path, 30, 2, 0.0)
    assert (tmp_path / "ckpt-30.index").stat().st_mtime_ns == written
    assert checkpoint.steps_on_disk(tmp_path) == [30, 20]
    assert len(list(tmp_path.iterdir())) == 2 * 3 + 1
    listed = tf.train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths
    assert list(listed) == [f"{tmp_path}/ckpt-{n}" for n in (20, 30)]
    assert tf.train.latest_checkpoint(str(tmp_path)) == f"{tmp_path}/ckpt-30"


@pytest.mark.parametrize("keep", [1, 2])
def test_a_kill_while_saving_leaves_the_one_before(tmp_path, monkeypatch, keep):
    """Even if only one is kept: it goes when the next one is sealed."""
    save(make_state(1), tmp_path, 10, keep)
    monkeypatch.setattr(checkpoint.files, "write_json", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(make_state(2), tmp_path, 20, keep)
    monkeypatch.undo()
    state = make_state(3)
    saver = checkpoint.make_saver(state)
    assert checkpoint.restore(saver, tmp_path) == 10
    checkpoint.save(saver, tmp_path, 30, keep, 0.0)
    assert checkpoint.steps_on_disk(tmp_path) == [30, 10][:keep]


def test_what_a_user_put_beside_the_checkpoints_stays(tmp_path):
    """A copy under a name like theirs is no checkpoint, and nobody's to delete."""
    (tmp_path / "ckpt-1.bak").mkdir()
    mine = ["ckpt-1.tar.gz", "ckpt-1.index.old", "ckpt-999.best", "ckpt-1.bak/file"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    state = make_state(0)
    for number in (1, 2, 3):
        save(state, tmp_path, number, keep=1)
    assert checkpoint.steps_on_disk(tmp_path) == [3]
    assert [(tmp_path / name).read_text() for name in mine] == ["mine"] * 4
    assert checkpoint.restore(checkpoint.make_saver(state), tmp_path) == 3


def test_a_damaged_later_checkpoint_does_not_push_out_a_new_one(tmp_path, capsys):
    save(make_state(1), tmp_path, 10)
    save(make_state(2), tmp_path, 20)
    flip(tmp_path / "ckpt-20.index")
    state = make_state(3)
    saver = checkpoint.make_saver(state)
    assert checkpoint.restore(saver, tmp_path) == 10
    later = {path.name: path.read_bytes() for path in tmp_path.glob("ckpt-20.*")}
    checkpoint.save(saver, tmp_path, 15, 1, 0.0)
    said = f"ckpt-20, of a later step, is kept in {tmp_path}/passed_over_1."
    assert said in capsys.readouterr().out
    assert checkpoint.restore(saver, tmp_path) == 15 and not capsys.readouterr().out
    # One may be the only copy of a user's; another does not take its place.
    (tmp_path / "ckpt-20.index").write_text("of another")
    checkpoint.save(saver, tmp_path, 16, 1, 0.0)
    aside = (tmp_path / "passed_over_1").iterdir()
    assert {path.name: path.read_bytes() for path in aside} == later and len(later) == 3
    (other,) = (tmp_path / "passed_over_2").iterdir()
    assert other.read_text() == "of another"


def test_what_a_killed_process_was_writing_is_cleaned_up(tmp_path):
    save(make_state(1), tmp_path, 10)
    before = [path.name for path in tmp_path.iterdir()]
    (tmp_path / "ckpt-20_temp").mkdir()
    (tmp_path / "ckpt-20_temp" / "part").write_text("x")
    for name in ("config.json", "metrics.jsonl", "checkpoint", "ckpt-20.json"):
        (tmp_path / f"{name}.partial").write_text("x")
    (tmp_path / "figures" / "test_20").mkdir(parents=True)
    (tmp_path / "figures" / "samples.png.partial").write_text("x")
    (tmp_path / "figures" / "test_20" / "samples.png.partial").write_text("x")
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "test_60.npz.partial").write_text("x")
    mine = "mine.partial", "notes.json.partial", "ckpt-best.json.partial"
    for name in mine:
        (tmp_path / name).write_text("x")
    (tmp_path / "ckpt-best_temp").mkdir()
    before = sorted([*before, "evaluations", "figures", "ckpt-best_temp", *mine])
    checkpoint.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (folder,) = (tmp_path / "figures").iterdir()
    assert not list(folder.iterdir()) + list((tmp_path / "evaluations").iterdir())
