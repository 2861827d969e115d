import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event

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


def test_keep_until_drops_what_will_be_trained_again(path):
    path.write_text(path.read_text() + '{"epoch": 4, "st')
    assert metrics.keep_until(path, 20) == 2
    assert metrics.read(path) == RECORDS[:2]
    metrics.append(path, RECORDS[2])
    assert metrics.read(path) == RECORDS
    assert [p.name for p in path.parent.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_reads_the_same_numbers(tmp_path):
    write = metrics.make_scalar_writer(tmp_path)
    for record in RECORDS:
        write(record["step"], "epoch", record)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    events = [Event.FromString(e.numpy()) for e in tf.data.TFRecordDataset(str(file))]
    found = []
    for event in events:
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            assert value.tag == "epoch/train_loss"
            found.append((event.step, float(tf.make_ndarray(value.tensor))))
    expected = [(r["step"], pytest.approx(r["train_loss"])) for r in RECORDS]
    assert found == expected
