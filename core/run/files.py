"""Files that are written whole or not at all, and a folder that one process has."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.progress import say
from core.run import process

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # as on some network disks
NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)
# What JSON raises where it is read that is damaged, or not what was expected.
NO_JSON = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


def lock(folder: Path, writes: bool = True) -> contextlib.ExitStack:
    """Keep other processes out of a run folder until what is returned is closed.

    The system frees the lock of a process that dies, however it dies. Where there are
    no locks, or nothing may be written and nothing has to be (not `writes`), it says so
    and goes on without. UserError: another process has it; the message names it.
    """
    with contextlib.ExitStack() as held:
        try:
            if writes:
                folder.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(open(folder / LOCK, "a+", errors="replace"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # a full disk: it is a message's alone
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), f"{os.getpid()}\n".encode())
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{folder} is in use by process {file.read(20).strip() or 'unknown'}: "
                "wait for it, or choose another --run_dir"
            ) from None
        except OSError as error:
            if error.errno not in (NO_LOCKS if writes else NO_LOCKS + NO_WRITING):
                raise
            reason = error.strerror
            say(f"{folder} cannot be locked ({reason}): let no other run use it.")
        return held.pop_all()


@contextlib.contextmanager
def whole(path: Path):
    """Open a file to write bytes to, which takes its place whole or not at all; it is
    on disk, and its name too, when this ends."""
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    process.unfinished.add(partial)
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
    finally:
        process.unfinished.discard(partial)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, *NO_LOCKS):  # as on some network disks
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def by_tensorflow(name: str):
    """Raise OSError if TensorFlow cannot write the file of that name."""
    import tensorflow as tf  # not above: some look at files before its slow import

    try:
        yield
    except tf.errors.OpError as error:
        reason = error.message.split("} ")[-1].split("\n")[0].split(" [Op:")[0]
        numbers = (n for n in errno.errorcode if reason.endswith(os.strerror(n)))
        message = f"{name} cannot be written ({reason})"
        raise OSError(next(numbers, errno.EIO), message) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by `whole`."""
    with whole(path) as file:
        file.write(content)


def write_arrays(path: Path, arrays: dict) -> None:
    """Write {name: array} as .npz, by `whole`."""
    with whole(path) as file:
        np.savez(file, **arrays)


def read_arrays(path: Path) -> dict | None:
    """What `write_arrays` wrote; None if it is not there, or damaged."""
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, *NO_JSON):
        return None  # NotImplementedError, of another version of zip, is a RuntimeError


def write_json(path: Path, value: dict) -> None:
    """Write JSON by `whole`."""
    write_whole(path, json.dumps(value, indent=2).encode())


def identity(path: Path) -> tuple | None:
    """What tells a file from another of its name; None if it is not there. OSError:
    nobody knows, as on a network disk that is away."""
    try:
        found = path.stat()
        return found.st_dev, found.st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal; "" where there is no file."""
    if not path.exists():
        return ""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
