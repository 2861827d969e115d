import errno
import os
import time
from types import SimpleNamespace

import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event, SessionLog

from core.errors import UserError
from core.run import metrics

RECORDS = [{"epoch": i, "step": 10 * i, "train_loss": 1 / i} for i in (1, 2, 3)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for record in RECORDS:
        metrics.append(path, record)
    return path


def test_records_come_back_exactly(path):
    assert metrics.read(path) == RECORDS
    assert metrics.read(path.with_name("none")) == []


def test_a_last_line_that_was_cut_is_left_out(path):
    path.write_text(path.read_text()[:-5])
    assert metrics.read(path) == RECORDS[:2]


def test_a_line_is_added_after_a_whole_one(path):
    path.write_text(path.read_text()[:-5])
    metrics.append(path, RECORDS[2])
    assert metrics.read(path) == RECORDS
    path.write_text("x" * 9)
    metrics.append(path, RECORDS[0])
    assert metrics.read(path) == RECORDS[:1]


def test_a_last_record_may_lack_its_lines_end(path):
    """As some editors leave it."""
    path.write_text(path.read_text()[:-1])
    assert metrics.read(path) == RECORDS
    metrics.append(path, RECORDS[0])
    assert metrics.read(path) == [*RECORDS, RECORDS[0]]


def test_a_cut_line_may_be_long(path):
    path.write_text(path.read_text() + '{"x": "' + "y" * metrics.LONGEST_LINE)
    metrics.append(path, RECORDS[0])
    assert metrics.read(path) == [*RECORDS, RECORDS[0]]


LINES = ['{"epoch" 2}', "[]", "1", '{"epoch": 2}', '{"step": "2"}', "\x00", "[" * 9999]


@pytest.mark.parametrize("line", LINES, ids=lambda line: repr(line[:9]))
def test_another_damaged_line_is_refused(path, line):
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(UserError, match="line 2 is damaged"):
        metrics.read(path)


def test_a_record_without_a_field_is_refused(path):
    assert metrics.read(path, ("step", "train_loss")) == RECORDS
    with pytest.raises(UserError, match="line 1 is damaged.*seconds"):
        metrics.read(path, ("step", "seconds"))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "null"])
def test_a_number_of_a_curve_is_finite(path, value):
    path.write_text(path.read_text().replace("0.5", value))
    assert len(metrics.read(path)) == 3
    with pytest.raises(UserError, match="line 2 is damaged"):
        metrics.read(path, ("train_loss",))


@pytest.mark.parametrize("name", "ENOSPC EACCES".split())
def test_what_the_system_said_of_an_event_file_is_its_error(
    tmp_path, monkeypatch, name
):
    events, number = metrics.Events(tmp_path, 0), getattr(errno, name)

    def flush():
        raise tf.errors.UnknownError(None, None, f"x; {os.strerror(number)}")

    monkeypatch.setattr(events, "_writer", SimpleNamespace(write=len, flush=flush))
    with pytest.raises(
        OSError, match="^.Errno.*events.out.*cannot be written"
    ) as error:
        events.add("epoch", RECORDS[0])
    assert error.value.errno == number
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="events.out.*cannot be written"):
        metrics.Events(tmp_path / "file", 0)


def test_keep_until_drops_what_will_be_trained_again(path):
    path.write_text(path.read_text() + '{"epoch": 4, "st')
    assert metrics.keep_until(path, 20) == 2
    assert metrics.read(path) == RECORDS[:2]
    metrics.append(path, RECORDS[2])
    assert metrics.read(path) == RECORDS
    assert [p.name for p in path.parent.iterdir()] == ["metrics.jsonl"]


# --- TensorBoard ----------------------------------------------------------------------


def drawn(folder):
    """{tag: [(step, value)]} that TensorBoard draws of a folder's event files, which
    it reads in the order of their names."""
    kept = {}
    for path in sorted(map(str, folder.glob("*tfevents*"))):
        first, *events = map(
            Event.FromString, tf.data.TFRecordDataset(path).as_numpy_iterator()
        )
        assert first.file_version == "brain.Event:2"  # else it does not know of START
        for event in events:
            if event.session_log.status == SessionLog.START:
                for tag, points in kept.items():
                    kept[tag] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                kept.setdefault(value.tag, []).append((event.step, value.simple_value))
    return kept


def write(folder, step, records):
    """Act as a process that goes on from the checkpoint of this step."""
    events = metrics.Events(folder, step)
    for record in records:
        events.add("epoch", record)


def points(records):
    return [(r["step"], pytest.approx(r["train_loss"])) for r in records]


def test_tensorboard_reads_the_same_numbers(tmp_path):
    extra = {"name": "x", "none": None, "list": [1.0], "train_rate": 2}
    write(tmp_path, 0, [record | extra for record in RECORDS])
    assert drawn(tmp_path) == {
        "epoch/train_loss": points(RECORDS),
        "epoch/train_rate": [(record["step"], 2.0) for record in RECORDS],
    }


def test_what_was_added_is_seen_at_once(tmp_path):
    """A killed process closes no file."""
    events = metrics.Events(tmp_path, 0)
    events.add("epoch", RECORDS[0])
    assert drawn(tmp_path)["epoch/train_loss"] == points(RECORDS[:1])


@pytest.mark.parametrize("step", [0, 10, 20, 25, 30])
def test_a_step_that_is_taken_again_is_drawn_once(tmp_path, step):
    """Of what an earlier process wrote, TensorBoard forgets what was not saved."""
    write(tmp_path, 0, RECORDS)
    kept = [record for record in RECORDS if record["step"] <= step]
    again = [r | {"train_loss": 7.0} for r in RECORDS if r["step"] > step]
    write(tmp_path, step, again)
    assert drawn(tmp_path)["epoch/train_loss"] == points(kept + again)


def test_only_a_start_makes_tensorboard_forget(tmp_path):
    events = metrics.Events(tmp_path, 20)
    events.add("epoch", RECORDS[2])
    (path,) = map(str, tmp_path.iterdir())
    read = tf.data.TFRecordDataset(path).as_numpy_iterator()
    _, start, added = map(Event.FromString, read)
    assert (start.session_log.status, start.step) == (SessionLog.START, 21)
    assert not added.HasField("session_log") and added.step == 30
    assert 0 < start.wall_time <= added.wall_time


def test_files_are_read_in_the_order_of_their_processes_whatever_the_clock(
    tmp_path, monkeypatch
):
    """Which was wrong at first, was set back, and stood still."""
    for i, seconds in enumerate((3e9, 2e9, 2e9, 4e9, 1.0)):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: seconds)
        write(tmp_path, 10 * i, [{"epoch": i + 1, "step": 10 * i + 10, "loss": i}])
    assert drawn(tmp_path)["epoch/loss"] == [(10 * i + 10, i) for i in range(5)]


NAMES = ["1732630000.host.8.0.v2", "1732630000 (copy).8", "best", "x.8", "²", "1.gz"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_other_event_files_in_a_folder_are_no_obstacle(tmp_path, name):
    """Of an earlier version, and what a user or a disk made of one."""
    (tmp_path / f"events.out.tfevents.{name}").touch()
    before = {path.name for path in tmp_path.iterdir()}
    write(tmp_path, 0, RECORDS)
    (tmp_path / f"events.out.tfevents.{name}").unlink()
    assert drawn(tmp_path)["epoch/train_loss"] == points(RECORDS)
    (file,) = {path.name for path in tmp_path.iterdir()} - before
    assert file.split(".")[3].isdecimal()
