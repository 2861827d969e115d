"""Which program made a run."""

import shutil
import subprocess

import pytest

from core import numerics
from core.run import program


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder of a small program."""
    root = tmp_path / "program"
    (root / "core" / "run").mkdir(parents=True)
    for name in ("loop.py", "core/rng.py", "core/run/files.py"):
        (root / name).write_text(f"# {name}\n")
    monkeypatch.setattr(program, "ROOT", root)
    return root


def version():
    """As a process finds it that begins now."""
    return program.version.__wrapped__()


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


needs_git = pytest.mark.skipif(not shutil.which("git"), reason="there is no git")


def test_this_program_has_a_digest_that_is_taken_once():
    found = program.version()
    assert len(found["sha256"]) == 64 and program.version() is found
    assert found == version()


CHANGES = {
    "loop": lambda root: (root / "loop.py").write_text("# KL times ten\n"),
    "deep": lambda root: (root / "core/run/files.py").write_text("# loop.py\n"),
    "white space": lambda root: (root / "core/rng.py").write_text("# core/rng.py\n\n"),
    "new": lambda root: (root / "core/run/new.py").write_text(""),
    "gone": lambda root: (root / "core/rng.py").unlink(),
    "renamed": lambda root: (root / "core/rng.py").rename(root / "core/noise.py"),
    "swapped": lambda root: [
        (root / "core/rng.py").write_text("# core/run/files.py\n"),
        (root / "core/run/files.py").write_text("# core/rng.py\n"),
    ],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_program_has_another_digest(root, change):
    before = version()["sha256"]
    assert version()["sha256"] == before
    CHANGES[change](root)
    assert version()["sha256"] != before


def test_what_is_no_part_of_the_program_does_not_change_it(root):
    before = version()
    (root / "core" / "__pycache__").mkdir()
    (root / "core" / "__pycache__" / "rng.cpython-313.pyc").write_bytes(b"\0")
    (root / "tests").mkdir()
    (root / "tests" / "test_loop.py").write_text("")
    for name in ("README.md", "core/notes.txt", "core/.rng.py.swp"):
        (root / name).write_text("x")
    assert version() == before


def test_it_is_the_same_wherever_it_stands(root, monkeypatch):
    before = version()
    moved = root.with_name("elsewhere")
    shutil.copytree(root, moved)
    monkeypatch.setattr(program, "ROOT", moved)
    assert version() == before


@needs_git
def test_a_checkout_has_its_commit(root):
    git(root, "init", "-q")
    assert version()["commit"] == ""  # nothing is committed yet
    git(root, "commit", "-q", "--allow-empty", "-m", "x")
    assert version()["commit"] == git(root, "rev-parse", "HEAD").strip()
    assert len(version()["commit"]) == 40


@needs_git
def test_the_commit_of_what_is_around_a_program_is_not_its_own(root):
    """As where it was unpacked within another project's checkout."""
    git(root.parent, "init", "-q")
    git(root.parent, "commit", "-q", "--allow-empty", "-m", "x")
    assert version()["commit"] == ""


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("git"),
        PermissionError("git"),
        subprocess.TimeoutExpired("git", 5),
    ],
    ids=["none", "forbidden", "slow"],
)
def test_a_program_runs_without_git(root, monkeypatch, error):
    def run(*command, **keywords):
        raise error

    before = version()["sha256"]
    monkeypatch.setattr(subprocess, "run", run)
    assert version() == {"sha256": before, "commit": ""}


def test_a_run_on_another_device_is_told_that_bits_differ(monkeypatch):
    monkeypatch.setattr(numerics, "device", lambda: "A card")
    begun = program.versions()
    assert begun["device"] == "A card" and program.remarks(begun) == []
    monkeypatch.setattr(numerics, "device", lambda: "CPU")
    (remark,) = program.remarks(begun)
    assert "begun with the device A card" in remark and "CPU" in remark
    del begun["device"]  # as of a run that is older than this record
    (remark,) = program.remarks(begun)
    assert "unknown" in remark
