"""One flat record for each event -> JSON lines, and TensorBoard events."""

import json
import os
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.summary_pb2 import SummaryMetadata

LONGEST_LINE = 2**16  # bytes


def append(path: Path, record: dict) -> None:
    """Add one line to a JSON-lines file, on disk when this returns.

    A last line that an earlier process could not finish is dropped first.
    """
    with open(path, "ab+") as file:
        file.seek(max(0, file.tell() - LONGEST_LINE))
        tail = file.read()
        file.truncate(file.tell() - len(tail) + tail.rfind(b"\n") + 1)
        file.write(json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict]:
    """The records of a JSON-lines file; a last line that was cut short is left out.

    Raises:
      ValueError: another line is damaged.
    """
    if not path.exists():
        return []
    with open(path, "rb") as file:
        return [
            _parse(line, f"{path}: line {number}")
            for number, line in enumerate(
                iter(lambda: file.readline(LONGEST_LINE), b""), 1
            )
            if line.endswith(b"\n") or len(line) == LONGEST_LINE
        ]


def _parse(line: bytes, where: str) -> dict:
    try:
        record = json.loads(line)
        if isinstance(record["step"], int):
            return record
        raise ValueError("its step is not a number")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{where} is damaged ({error}): remove it, or choose another --run_dir"
        ) from error


def keep_until(path: Path, step: int) -> int:
    """Drop the records after `step`, which the run will take again; how many remain."""
    records = [record for record in read(path) if record["step"] <= step]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    os.replace(partial, path)
    return len(records)


def make_scalar_writer(folder: Path):
    """write(step, prefix, record): a record's floats as TensorBoard scalars.

    `tf.summary.scalar` needs the tensorboard package; events of the same form do not.
    """
    writer = tf.summary.create_file_writer(str(folder))
    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
    )

    def write(step: int, prefix: str, record: dict) -> None:
        with writer.as_default():
            for name, value in record.items():
                if isinstance(value, float):
                    value = tf.constant(value, tf.float32)
                    tf.summary.write(f"{prefix}/{name}", value, step, metadata)
        writer.flush()

    return write
