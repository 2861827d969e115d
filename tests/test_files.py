import hashlib
import os

import pytest

from core import files


def test_a_folder_is_locked_until_it_is_let_go(tmp_path):
    with files.lock(tmp_path / "run"):
        with pytest.raises(ValueError, match=f"in use by process {os.getpid()}:"):
            files.lock(tmp_path / "run")
    with files.lock(tmp_path / "run"):
        pass


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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 99999, "nested"),
        (b" " * 2**20 + b"1", "longer than"),
        (b"{", "Expecting"),
    ],
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
