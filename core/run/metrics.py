"""One flat record for each event -> JSON lines, and TensorBoard events."""

import json
import os
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.summary_pb2 import SummaryMetadata

from core.errors import UserError
from core.run import files

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


def read(path: Path, fields=("step",)) -> list[dict]:
    """The records of a JSON-lines file; a last line that was cut short is left out.

    Raises:
      UserError: another line is damaged, or lacks a number for one of the `fields`.
    """
    if not path.exists():
        return []
    with open(path, "rb") as file:
        lines = list(iter(lambda: file.readline(LONGEST_LINE), b""))
    if lines and not lines[-1].endswith(b"\n") and len(lines[-1]) < LONGEST_LINE:
        lines.pop()
    return [_parse(line, path, i, fields) for i, line in enumerate(lines, start=1)]


def _parse(line: bytes, path: Path, number: int, fields) -> dict:
    try:
        record = json.loads(line)
        if all(isinstance(record[name], (int, float)) for name in fields):
            return record
        reason = f"expected numbers in {', '.join(fields)}"
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        reason = repr(error)
    raise UserError(
        f"{path}: line {number} is damaged ({reason}): remove it, or choose another "
        "--run_dir"
    )


def keep_until(path: Path, step: int) -> int:
    """Drop the records after `step`, which the run will take again; how many remain."""
    records = [record for record in read(path) if record["step"] <= step]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    files.write_whole(path, lines.encode())
    return len(records)


def make_scalar_writer(folder: Path):
    """write(step, prefix, record): a record's numbers as TensorBoard scalars.

    `tf.summary.scalar` needs the tensorboard package; events of the same form do not.
    """
    writer = tf.summary.create_file_writer(str(folder))
    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
    )

    def write(step: int, prefix: str, record: dict) -> None:
        with writer.as_default():
            for name, value in record.items():
                if isinstance(value, (int, float)) and name not in ("epoch", "step"):
                    value = tf.constant(value, tf.float32)
                    tf.summary.write(f"{prefix}/{name}", value, step, metadata)
        writer.flush()

    return write
