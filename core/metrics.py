"""One flat record for each event -> JSON lines, and TensorBoard events."""

import json
import os
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.summary_pb2 import SummaryMetadata


def append(path: Path, record: dict) -> None:
    """Add one line to a JSON-lines file, and flush it."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path) -> list[dict]:
    """The records of a JSON-lines file; a last line that was cut short is left out.

    Raises:
      ValueError: another line is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last \n
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is damaged ({error})") from error
    return records


def keep_until(path: Path, step: int) -> None:
    """Drop the records after `step`: steps that the run will take again."""
    records = [record for record in read(path) if record["step"] <= step]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    os.replace(partial, path)


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
