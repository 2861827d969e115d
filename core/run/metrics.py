"""One flat record for each event -> JSON lines, and TensorBoard events."""

import json
import math
import os
import time
from pathlib import Path

import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event, SessionLog

from core.errors import UserError
from core.run import files

LONGEST_LINE = 2**16  # bytes
EVENTS = "events.out.tfevents."


def append(path: Path, record: dict) -> None:
    """Add one line to a JSON-lines file, on disk when this returns.

    A last line that an earlier process could not finish is dropped first.
    """
    with open(path, "ab+") as file:
        size = file.tell()
        file.seek(max(0, size - LONGEST_LINE))
        if b"\n" not in (tail := file.read()):
            file.seek(0)
            tail = file.read()
        *_, last = tail.split(b"\n")
        ended = b"\n" if _is_whole(last) else b""
        file.truncate(size if ended else size - len(last))
        file.write(ended + json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _is_whole(last: bytes) -> bool:
    """Whether what follows the last line's end is a record that lacks its own."""
    try:
        return isinstance(json.loads(last), dict)
    except files.NO_JSON:
        return False


def read(path: Path, fields=("step",)) -> list[dict]:
    """The records of a JSON-lines file; a last line that was cut short is left out.

    UserError: another line is damaged, or lacks a number for one of the `fields`.
    """
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    lines += [last] if _is_whole(last) else []
    return [_parse(line, path, i, fields) for i, line in enumerate(lines, start=1)]


def _parse(line: bytes, path: Path, number: int, fields) -> dict:
    try:
        record = json.loads(line)
        numbers = [record[name] for name in fields]
        if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
            raise ValueError(f"expected numbers in {', '.join(fields)}")
        return record
    except files.NO_JSON as error:
        raise UserError(
            f"{path}: line {number} is damaged ({error!r}): remove it, or choose "
            "another --run_dir"
        ) from error


def keep_until(path: Path, step: int) -> int:
    """Drop the records after `step`, which the run will take again; how many remain."""
    records = [record for record in read(path) if record["step"] <= step]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    files.write_whole(path, lines.encode())
    return len(records)


class Events:
    """TensorBoard's copy of the records, in an event file of this process."""

    def __init__(self, folder: Path, step: int):
        """`step` is that of the checkpoint: TensorBoard forgets what an earlier process
        wrote beyond it."""
        names = (path.name.split(".")[3] for path in folder.glob(f"{EVENTS}*"))
        there = (int(name) + 1 for name in names if name.isdecimal())
        number = max(int(time.time()), *there, 0)  # its order
        self._name = f"{EVENTS}{number}.{os.getpid()}"
        with files.by_tensorflow(self._name):
            self._writer = tf.io.TFRecordWriter(f"{folder}/{self._name}")
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1, session_log={"status": SessionLog.START})

    def _write(self, **fields) -> None:
        event = Event(wall_time=time.time(), **fields)
        with files.by_tensorflow(self._name):
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    def add(self, prefix: str, record: dict) -> None:
        """Add a record's numbers as scalars."""
        values = [
            {"tag": f"{prefix}/{name}", "simple_value": value}
            for name, value in record.items()
            if isinstance(value, (int, float)) and name not in ("epoch", "step")
        ]
        self._write(step=record["step"], summary={"value": values})
