import hashlib
import json

import pytest

from core.errors import UserError
from core.run import config

CONFIG = {"flags": {"epochs": 3}, "dataset": {}, "versions": {}}


def test_config_comes_back(tmp_path):
    assert config.read(tmp_path) is None
    config.write(tmp_path, CONFIG)
    assert config.read(tmp_path) == {"format": config.FORMAT} | CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_what_was_read_can_be_written_again(tmp_path):
    config.write(tmp_path, CONFIG)
    before = (tmp_path / "config.json").read_bytes()
    config.write(tmp_path, config.read(tmp_path))
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"{}", b'{"flags": {}}', b"\x00", b"\xff", b"[" * 99999, b"1"],
    ids=lambda content: repr(content[:9]),
)
def test_a_damaged_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="config.json: expected the config of the run"):
        config.read(tmp_path)


def test_a_changed_or_missing_config_is_refused(tmp_path):
    config.write(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"epochs": 3', '"epochs": 4'))
    with pytest.raises(UserError, match="it was changed or damaged"):
        config.read(tmp_path)
    path.unlink()
    (tmp_path / "ckpt-10.index").write_text("")
    with pytest.raises(UserError, match="cannot be read"):
        config.read(tmp_path)


def test_white_space_is_no_change(tmp_path):
    config.write(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert config.read(tmp_path) == {"format": config.FORMAT} | CONFIG


def write_sealed(folder, value):
    """A whole config.json, of whatever version."""
    seal = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    (folder / "config.json").write_text(json.dumps(value | {"sha256": seal}))


@pytest.mark.parametrize(
    ("of_run", "message"),
    [
        ({}, r"an earlier version of this program \(format 1, not 2\): go on with"),
        ({"format": 1}, r"an earlier version of this program \(format 1, not 2\)"),
        ({"format": 3}, r"a later version of this program \(format 3, not 2\)"),
    ],
    ids=["no format", "format 1", "format 3"],
)
def test_a_run_of_another_format_is_left_to_its_version(tmp_path, of_run, message):
    write_sealed(tmp_path, CONFIG | of_run)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=f"holds a run of {message}"):
        config.read(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
    write_sealed(tmp_path, CONFIG | {"format": config.FORMAT})
    assert config.read(tmp_path)["flags"] == {"epochs": 3}
