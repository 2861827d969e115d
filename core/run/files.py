"""Files that are written whole or not at all, and a folder that one process has."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from pathlib import Path

from core.errors import UserError
from core.progress import say

LOCK = ".lock"
LONGEST_JSON = 2**20  # bytes
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # as on some network disks
NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)


def lock(folder: Path, writes: bool = True):
    """Keep other processes out of a run folder until what is returned is closed.

    The system frees the lock of a process that dies, however it dies. Where there are
    no locks, or nothing may be written and nothing has to be (not `writes`), it says so
    and goes on without.

    Raises:
      UserError: another process has it; the message names it.
    """
    file = None
    try:
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read(20).strip() or "unknown"
        file.close()
        raise UserError(
            f"{folder} is in use by process {owner}: wait for it, or choose another "
            "--run_dir"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS and (writes or error.errno not in NO_WRITING):
            if file:
                file.close()
            raise
        say(f"{folder} cannot be locked ({error.strerror}): let no other run use it.")
        return file or contextlib.nullcontext()
    with contextlib.suppress(OSError):  # a full disk: it is for the message alone
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"{os.getpid()}\n".encode())
    return file


@contextlib.contextmanager
def whole(path: Path):
    """Open a file to write bytes to, which takes its place whole or not at all; it is
    on disk when this ends."""
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, *NO_LOCKS):  # as on some network disks
            raise
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; it is on disk when this returns."""
    with whole(path) as file:
        file.write(content)


def write_json(path: Path, value: dict) -> None:
    """Write JSON by `write_whole`."""
    write_whole(path, json.dumps(value, indent=2).encode())


def read_json(path: Path):
    """The value in a small JSON file; ValueError if it is not one."""
    with open(path, "rb") as file:
        content = file.read(LONGEST_JSON + 1)
    if len(content) > LONGEST_JSON:
        raise ValueError(f"longer than {LONGEST_JSON} bytes")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal; "" where there is no file."""
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
