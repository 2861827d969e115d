import hashlib
import os

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


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "numbers.json"
    files.write_json(path, {"a": 1})
    monkeypatch.setattr(os, "replace", lambda *names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    monkeypatch.undo()
    files.write_json(path, {"a": 3})
    assert files.read_json(path) == {"a": 3} and os.listdir(tmp_path) == [path.name]


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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 99999, "nested"),
        (b" " * 2**20 + b"1", "longer than"),
        (b"{", "Expecting"),
    ],
    ids=["nested", "long", "cut"],
)
def test_no_json_file_is_more_than_a_value_error(tmp_path, content, reason):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        files.read_json(tmp_path / "a.json")


def test_a_digest_is_of_the_whole_file(tmp_path):
    content = os.urandom(3 * 2**20 + 5)
    (tmp_path / "large").write_bytes(content)
    assert files.sha256(tmp_path / "large") == hashlib.sha256(content).hexdigest()
    assert files.sha256(tmp_path / "none") == ""
