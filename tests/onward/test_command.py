import contextlib
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

from core import settings as settings_of
from core.errors import UserError
from core.onward import command
from tests.conftest import ROOT

DEFAULTS = dict(run_dir="checkpoints/this", epochs=7, hidden_sizes=(3, 4))


@pytest.fixture
def begin(monkeypatch):
    """`command.begin` with these arguments, which leaves the process as it is."""
    monkeypatch.setattr(command.process, "prepare", lambda: None)
    monkeypatch.setattr(command.process, "begin", lambda: None)
    monkeypatch.setattr(command.process, "importing", contextlib.nullcontext)

    def begin(*arguments):
        monkeypatch.setattr("sys.argv", ["this.py", *arguments])
        return command.begin("About this.", DEFAULTS, "run_dir seed epochs")

    return begin


def test_settings_are_the_files_defaults_and_what_is_typed(begin):
    assert begin() == settings_of.of_values(DEFAULTS)
    asked = begin("--seed=3", "--run_dir=there")
    assert asked == settings_of.of_values(DEFAULTS | dict(seed=3, run_dir="there"))


def test_the_command_that_goes_on_is_that_of_a_module(begin):
    """The file cannot run by itself."""
    begin("--seed=3")
    command_line = command.process.command("auto", "--epochs=9")
    assert command_line.endswith(" -m core.onward.this --seed=3 --epochs=9")


def test_help_is_that_of_the_settings(begin, capsys):
    with pytest.raises(SystemExit, match="0"):
        begin("--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "About this." in said
    for name, default in (("seed", 0), ("epochs", 7)):
        help = settings_of.FIELDS[name].metadata["help"]
        assert f"{help} [{default}]" in said


@pytest.mark.parametrize(
    "typed", ["--seed=x", "--epochs=0", "--epoch=3", "--beta=1", "--run_dir=", "more"]
)
def test_what_is_wrong_is_said_in_one_line(begin, capsys, typed):
    with pytest.raises(SystemExit, match="2"):
        begin(typed)
    said, wrong = capsys.readouterr()
    assert not said and wrong.count("\n") == 1
    assert wrong.startswith("error: ") and typed.split("=")[0] in wrong


def test_what_a_user_can_mend_is_one_line(capsys):
    def run(settings, stop):
        raise UserError("mend\nthis")

    assert command.end(run, None) == 1
    assert capsys.readouterr().err == "error: mend this\n"


def test_too_little_memory_is_one_line(capsys):
    def run(settings, stop):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when\nallocating")

    assert command.end(run, None) == 1
    assert capsys.readouterr().err.startswith("error: out of memory: choose smaller")


def test_a_mistake_in_the_code_keeps_its_traceback():
    def run(settings, stop):
        raise ValueError("wrong shape")

    with pytest.raises(ValueError, match="wrong shape"):
        command.end(run, None)


def test_the_exit_code_tells_of_a_stop():
    def run(settings, stop):
        stop.deferred = settings
        signal.raise_signal(signal.SIGTERM)

    assert command.end(run, True) == 128 + signal.SIGTERM
    assert command.end(lambda settings, stop: None, None) == 0


def test_what_reads_the_command_line_does_not_wait_for_tensorflow():
    """A typo shows at once: what comes before its slow import needs it nowhere."""
    script = "import sys, flags, core.onward.command as _; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    modules = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    assert b"core.run.files" in modules and b"tensorflow" not in modules
