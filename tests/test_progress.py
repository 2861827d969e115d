"""What is said, and bars: signs of life, and never the end of a run."""

import errno
import fcntl
import io
import os
import pty
import stat
import struct
import subprocess
import sys
import termios

import pytest

from core import progress
from core.run.screen import Screen
from tests.conftest import ROOT

BROKEN = {  # why a stream does not take what is written to it
    "terminal": OSError(errno.EIO, "its terminal was closed"),
    "pipe": BrokenPipeError(errno.EPIPE, "its reader left"),
    "full": OSError(errno.ENOSPC, "its disk is full"),
    "quota": OSError(errno.EDQUOT, "its owner's room is used up"),
    "busy": BlockingIOError(errno.EAGAIN, "its reader is slow"),
    "closed": ValueError("I/O operation on closed file"),
}


class Stream(io.StringIO):
    """One that cannot be written to while it has an `error`."""

    error = None

    def write(self, text):
        if self.error:
            raise self.error
        return super().write(text)


class Terminal(Stream):
    def isatty(self):
        return True


class Bare:
    """No more than what a notebook, or a program's own log, may have."""

    def __init__(self):
        self.found = []

    def write(self, text):
        self.found.append(text)


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


# --- Lines ----------------------------------------------------------------------------


def test_lines_go_to_their_streams(capsys):
    progress.say("so far, so good")
    progress.complain("error: not so good")
    assert capsys.readouterr() == ("so far, so good\n", "error: not so good\n")


SAY = [("stdout", progress.say), ("stderr", progress.complain)]


@pytest.mark.parametrize("error", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(("name", "say"), SAY, ids=["stdout", "stderr"])
def test_a_stream_that_broke_ends_nothing(monkeypatch, name, say, error):
    """And costs nothing, however often: a run of years has its files to open."""
    stream = Stream()
    stream.error = error
    monkeypatch.setattr(sys, name, stream)
    before = descriptors()
    for _ in range(3):
        say("to nobody")
    assert descriptors() == before and not stream.getvalue()


@pytest.mark.parametrize(("name", "say"), SAY, ids=["stdout", "stderr"])
def test_what_a_broken_stream_still_holds_goes_nowhere(
    tmp_path, monkeypatch, name, say
):
    """Else Python would find out at its end that it cannot write, and fail."""
    with open("/dev/full", "w") as stream, open(tmp_path / "file", "w") as other:
        monkeypatch.setattr(sys, name, stream)
        say("to nobody")
        assert os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
        say("nor this")
        print("nor that", file=stream, flush=True)
        assert stat.S_ISREG(os.fstat(other.fileno()).st_mode)  # no other is changed


@pytest.mark.parametrize(("name", "say"), SAY, ids=["stdout", "stderr"])
def test_a_stream_needs_no_more_than_to_be_written_to(monkeypatch, name, say):
    stream = Bare()
    monkeypatch.setattr(sys, name, stream)
    say("first")
    say("second")
    assert "".join(stream.found) == "first\nsecond\n"
    monkeypatch.setattr(Bare, "write", lambda self, text: open("/dev/full/no"))
    say("to nobody")


@pytest.mark.parametrize(("name", "say"), SAY, ids=["stdout", "stderr"])
def test_what_a_stream_cannot_spell_is_spelled_otherwise(monkeypatch, name, say):
    """And what is said after it is still said."""
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, name, narrow)
    say("Run: na\u00efve")
    say("epoch 1")
    assert narrow.buffer.getvalue() == b"Run: na\\xefve\nepoch 1\n"


SPEAKER = """if True:
    import os, sys
    from core.progress import complain, say
    for number in range(50):
        say(999 * "x")
        complain(999 * "x")
    os.write(int(sys.argv[1]), b"went on")
"""


@pytest.mark.parametrize("kind", ["full disk", "pipe", "terminal"])
def test_a_process_goes_on_and_ends_well_when_nobody_hears_it(tmp_path, kind):
    if kind == "full disk":
        ours, theirs = None, os.open("/dev/full", os.O_WRONLY)
    else:
        ours, theirs = os.pipe() if kind == "pipe" else pty.openpty()
        os.close(ours)
    with open(tmp_path / "file", "wb") as file:
        number = file.fileno()
        found = subprocess.run(
            [sys.executable, "-B", "-c", SPEAKER, str(number)],
            cwd=ROOT,
            stdout=theirs,
            stderr=theirs,
            pass_fds=[number],
            timeout=20,
        )
    os.close(theirs)
    assert found.returncode == 0
    assert (tmp_path / "file").read_bytes() == b"went on"


def test_a_line_is_seen_at_once():
    script = """if True:
        import os
        from core.progress import complain, say
        say("seen")
        complain("seen too")
        os._exit(0)  # nothing is flushed
    """
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-B", "-c", script]
    found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=20)
    assert (found.stdout, found.stderr) == (b"seen\n", b"seen too\n")


# --- Bars -----------------------------------------------------------------------------


def on_a_terminal(monkeypatch):
    """Have both streams on a terminal."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    return terminal


def test_a_bar_is_seen_on_a_terminal_alone(capsys, monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    with progress.bar(8, "image", "drawing", initial=2) as bar:
        bar.update(2)
        bar.refresh()
    assert "drawing: " in terminal.getvalue() and "4/8" in terminal.getvalue()
    monkeypatch.undo()
    with progress.bar(8, "image", "drawing") as bar:
        bar.update(8)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_is_a_line_now_and_then(capsys, monkeypatch):
    """In a log, or through a pipe, hours of silence would look like a hang."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.bar(8000, "image", "-log p(x)", initial=1000) as bar:
        for seconds in (29, 2, 29, 2):
            now[0] += seconds
            bar.update(500)
    assert capsys.readouterr() == (
        "-log p(x): 2,000 of 8,000 images\n-log p(x): 3,000 of 8,000 images\n",
        "",
    )
    with Screen(0, 900) as screen:
        now[0] += 31
        screen.show(3, 450, [1.5, 1.25, 0.25])
        now[0] += 29
        screen.say("epoch 3")
        now[0] += 2
        screen.show(4, 460, [1.5, 1.25, 0.25])
    said = "epoch 3: 450 of 900 steps, loss=1.5, distortion=1.2, rate=0.2\nepoch 3\n"
    assert capsys.readouterr() == (said, "")
    with progress.bar(None, "B", "file") as bar:
        now[0] += 31
        bar.update(70_000)
    assert capsys.readouterr() == ("file: 70,000 bytes\n", "")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with progress.bar(8, "image", "drawing") as bar:
        now[0] += 31
        bar.update(8)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("value", "seen"),
    [("1", False), ("true", False), ("yes", False), ("0", True), ("", True)],
    ids=["1", "true", "yes", "0", "empty"],
)
def test_a_user_may_want_no_bars(monkeypatch, value, seen):
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setenv("TQDM_DISABLE", value)
    with progress.bar(8, "image", "drawing") as bar:
        bar.update(8)
    assert ("drawing" in terminal.getvalue()) == seen


@pytest.fixture
def resize(monkeypatch):
    """resize(columns) of the terminal that `Terminal` says it is."""
    ours, theirs = pty.openpty()
    monkeypatch.setattr(Terminal, "fileno", lambda self: theirs)

    def resize(columns):
        size = struct.pack("4H", 20, columns, 0, 0)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)

    yield resize
    os.close(ours)
    os.close(theirs)


def test_a_bar_follows_the_width_of_its_terminal(monkeypatch, resize):
    """One that is longer is wrapped, and its next drawing stands below it."""
    terminal = on_a_terminal(monkeypatch)
    resize(80)
    with progress.bar(8, "image", "drawing") as bar:
        for columns in (60, 40, 100):
            resize(columns)
            bar.refresh()  # wipes what the last drawing left
            terminal.truncate(0)
            bar.refresh()
            drawn = terminal.getvalue().strip("\0\r\n")
            assert columns - 2 <= len(drawn) < columns


@pytest.mark.parametrize("error", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("first", [True, False], ids=["at first", "later"])
def test_a_bar_that_cannot_be_drawn_ends_nothing(monkeypatch, error, first):
    """A terminal that hangs up, or one whose reader is slow and that does not wait."""
    terminal = on_a_terminal(monkeypatch)
    terminal.error = error if first else None
    with progress.bar(8, "image", "drawing") as bar:
        terminal.error = error
        bar.set_description("drawing on")
        bar.update(8)
        bar.refresh()
        with bar.external_write_mode():
            progress.say("a line above it")
    assert bar.n == 8
