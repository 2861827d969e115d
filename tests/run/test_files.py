import errno
import fcntl
import hashlib
import json
import os
import resource

import numpy as np
import pytest

from core.errors import UserError
from core.run import files
from tests.conftest import ROOT, program


def test_a_folder_is_locked_until_it_is_let_go(tmp_path):
    with files.lock(tmp_path / "run"):
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}:"):
            files.lock(tmp_path / "run")
    with files.lock(tmp_path / "run"):
        pass


def test_a_lock_may_hold_anything(tmp_path):
    with files.lock(tmp_path):
        (tmp_path / files.LOCK).write_bytes(b"\xff\xfe")
        with pytest.raises(UserError, match="is in use by process "):
            files.lock(tmp_path)


@pytest.mark.parametrize("offset", range(0, 500, 7))
def test_damaged_arrays_are_none_or_arrays(tmp_path, offset):
    """A bit of a zip file's header may ask for a password or another version of zip."""
    path = tmp_path / "a.npz"
    files.write_arrays(path, {"x": np.arange(3), "y": np.ones(2)})
    content = path.read_bytes()
    for place in range(offset, min(offset + 7, len(content))):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            assert isinstance(files.read_arrays(path), dict | None)


def test_one_array_is_not_arrays(tmp_path):
    with open(tmp_path / "a.npz", "wb") as file:
        np.save(file, np.arange(3))
    assert files.read_arrays(tmp_path / "a.npz") is None


def test_a_lock_that_is_refused_leaves_the_owners_name(tmp_path):
    with files.lock(tmp_path):
        for _ in range(2):
            with pytest.raises(UserError, match=f"process {os.getpid()}:"):
                files.lock(tmp_path)
    assert (tmp_path / files.LOCK).read_text() == f"{os.getpid()}\n"


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        from core.run import files
        lock = files.lock(Path(sys.argv[1]))
        print("locked", flush=True)
        signal.pause()
    """
    owner = program(str(tmp_path), script=("-c", script), cwd=ROOT)
    assert owner.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"in use by process {owner.pid}:"):
        files.lock(tmp_path)
    owner.kill()
    owner.communicate(timeout=20)
    files.lock(tmp_path).close()


def refusing(number):
    """A function of the system that answers with this error."""

    def refuse(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    return refuse


NO_LOCKS = ["ENOLCK", "ENOSYS", "EOPNOTSUPP"]


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("name", NO_LOCKS)
def test_where_there_are_no_locks_it_is_said_and_goes_on(
    tmp_path, monkeypatch, capsys, name, writes
):
    number = getattr(errno, name)
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with files.lock(tmp_path, writes), files.lock(tmp_path, writes):
        pass
    line = f"{tmp_path} cannot be locked ({os.strerror(number)}): let no other run "
    assert capsys.readouterr().out == 2 * f"{line}use it.\n"


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("name", ["EIO", "EMFILE", "ESTALE"])
def test_another_error_of_a_lock_is_one(tmp_path, monkeypatch, capsys, name, writes):
    monkeypatch.setattr(fcntl, "flock", refusing(getattr(errno, name)))
    with pytest.raises(OSError) as error:
        files.lock(tmp_path, writes)
    assert error.value.errno == getattr(errno, name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["EACCES", "EPERM", "EROFS"])
def test_who_only_reads_needs_no_lock_where_none_can_be_made(
    tmp_path, monkeypatch, capsys, name
):
    number = getattr(errno, name)
    monkeypatch.setattr(files, "open", refusing(number), raising=False)
    with files.lock(tmp_path, writes=False):
        pass
    assert f"cannot be locked ({os.strerror(number)})" in capsys.readouterr().out
    with pytest.raises(OSError) as error:  # and who writes could not
        files.lock(tmp_path)
    assert error.value.errno == number
    assert not list(tmp_path.iterdir())


def test_who_only_reads_waits_for_who_writes_and_makes_no_folder(tmp_path):
    with files.lock(tmp_path), pytest.raises(UserError, match="in use by process"):
        files.lock(tmp_path, writes=False)
    with files.lock(tmp_path, writes=False), pytest.raises(UserError, match="in use"):
        files.lock(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.lock(tmp_path / "none", writes=False)
    assert os.listdir(tmp_path) == [files.LOCK]


@pytest.fixture
def no_room():
    """No file can be written to."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("writes", [True, False])
def test_a_lock_is_a_lock_where_there_is_no_room_for_its_owners_name(
    tmp_path, no_room, writes
):
    """What has to be written will tell by itself that there is none."""
    with files.lock(tmp_path, writes):
        with pytest.raises(UserError, match="in use by process unknown:"):
            files.lock(tmp_path, writes)
    files.lock(tmp_path, writes).close()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "numbers.json"
    files.write_json(path, {"a": 1})
    monkeypatch.setattr(os, "replace", lambda *names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        files.write_json(path, {"a": 2})
    assert json.loads(path.read_bytes()) == {"a": 1}
    monkeypatch.undo()
    files.write_json(path, {"a": 3})
    assert json.loads(path.read_bytes()) == {"a": 3} and os.listdir(tmp_path) == [
        path.name
    ]


def test_what_fails_while_it_is_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "deep" / "file"
    with files.whole(path) as file:
        file.write(b"before")
        assert not path.exists()
    assert path.read_bytes() == b"before"
    with pytest.raises(KeyboardInterrupt), files.whole(path) as file:
        file.write(b"a beginning")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before" and os.listdir(path.parent) == ["file"]
    files.write_whole(path, b"after")
    assert path.read_bytes() == b"after" and os.listdir(path.parent) == ["file"]


FULL = {  # what finds out that a disk is full
    "fsync": (os, "fsync"),
    "replace": (os, "replace"),
}


@pytest.mark.parametrize("where", FULL)
@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_is_left_no_fuller(tmp_path, monkeypatch, where, there):
    path = tmp_path / "file"
    if there:
        files.write_whole(path, b"before")
    monkeypatch.setattr(*FULL[where], refusing(errno.ENOSPC))
    with pytest.raises(OSError) as error:
        files.write_whole(path, b"after")
    assert error.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["file"] * there
    assert not there or path.read_bytes() == b"before"


@pytest.mark.parametrize("size", [1, 10**6], ids=["short", "long"])
def test_so_is_one_that_is_full_in_the_midst_of_a_file(tmp_path, no_room, size):
    """Python may find it out as late as it writes what it had buffered."""
    with pytest.raises(OSError) as error:
        files.write_whole(tmp_path / "file", bytes(size))
    assert error.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["EINVAL", *NO_LOCKS])
def test_a_disk_may_not_know_how_to_sync_a_folder(tmp_path, monkeypatch, name):
    """As some network disks; what is written there is as safe as it can be."""
    really = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            refusing(getattr(errno, name))()
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    before = len(os.listdir("/proc/self/fd"))
    files.write_whole(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    name = "EIO"  # which is an error wherever it comes from
    with pytest.raises(OSError):
        files.write_whole(tmp_path / "file", b"content")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_on_disk_before_it_has_its_name_and_so_is_its_name(
    tmp_path, monkeypatch
):
    done = []
    really = {name: getattr(os, name) for name in ("fsync", "replace")}

    def fsync(descriptor):
        really["fsync"](descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        done.append(f"fsync {os.path.basename(path)}")

    def replace(old, new):
        really["replace"](old, new)
        done.append(f"replace {new.name}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_whole(tmp_path / "file", b"content")
    assert done == ["fsync file.partial", "replace file", f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("content", [b"[" * 99999, b"{", b"[]", b"1", b"{}"])
def test_what_damaged_json_raises_is_known(content):
    with pytest.raises(files.NO_JSON):
        json.loads(content).pop("sha256")


def test_a_disk_that_does_not_answer_has_not_lost_a_file(tmp_path):
    class Away:
        def stat(self):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        files.identity(Away())
    assert files.identity(tmp_path / "nothing") is None
    (tmp_path / "file").write_text("")
    assert files.identity(tmp_path / "file" / "in it") is None
    assert files.identity(tmp_path / "file") == files.identity(tmp_path / "." / "file")


def test_a_digest_is_of_the_whole_file(tmp_path):
    content = os.urandom(3 * 2**20 + 5)
    (tmp_path / "large").write_bytes(content)
    assert files.sha256(tmp_path / "large") == hashlib.sha256(content).hexdigest()
    assert files.sha256(tmp_path / "none") == ""
