import contextlib
import errno
import io
import os

import pytest

from core.run.screen import SHOWN, Screen
from core.training.state import MEASURES


class Terminal(io.StringIO):
    """What is written to it, as one would see it."""

    error = None

    def write(self, text):
        if self.error:
            raise self.error
        return super().write(text)

    def isatty(self):
        return True

    def lines(self):
        """Whoever returns to a line's start writes over what stood there."""
        seen = []
        for line in self.getvalue().split("\n"):
            text = ""
            for part in line.split("\r"):
                text = part + text[len(part) :]
            seen.append(text.rstrip())
        return seen


@contextlib.contextmanager
def on_a_terminal():
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        yield terminal


def test_the_bar_names_the_measures_of_a_step():
    assert MEASURES[: len(SHOWN)] == SHOWN


def test_the_bar_counts_the_steps_of_all_epochs_from_where_the_run_is():
    with on_a_terminal() as terminal, Screen(done=15, total=60) as screen:
        assert "compiling" in terminal.lines()[-1]
        assert "15/60" in terminal.lines()[-1]
        screen.show(2, 20, [150.04, 140.0, 10.0, 7.0])
        screen.show(3, 45, [123.44, 111.11, 12.34, 7.0])
    bar, end = terminal.lines()
    assert bar.startswith("epoch 3: ") and "45/60" in bar and "75%" in bar
    assert "loss=123.4, distortion=111.1, rate=12.3]" in bar and not end


def test_lines_stand_above_the_bar():
    with on_a_terminal() as terminal, Screen(done=0, total=60) as screen:
        for epoch in (1, 2):
            screen.show(epoch, 30 * epoch, [1.0, 1.0, 0.0, 1.0])
            screen.say(f"epoch {epoch}/2")
    first, second, bar, end = terminal.lines()
    assert (first, second, end) == ("epoch 1/2", "epoch 2/2", "")
    assert "60/60" in bar


def test_without_a_terminal_there_are_lines_and_no_bar(capsys):
    with Screen(done=0, total=60) as screen:
        screen.show(1, 30, [1.0, 1.0, 0.0, 1.0])
        screen.say("epoch 1/2")
    assert capsys.readouterr() == ("epoch 1/2\n", "")


def test_so_it_is_on_a_terminal_where_no_bars_are_wanted(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with on_a_terminal() as terminal, Screen(done=0, total=60) as screen:
        screen.show(1, 30, [1.0, 1.0, 0.0, 1.0])
        screen.say("epoch 1/2")
    assert terminal.getvalue() == "epoch 1/2\n"


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE, errno.ENOSPC])
def test_a_terminal_that_is_gone_ends_no_training(number):
    with on_a_terminal() as terminal, Screen(done=0, total=60) as screen:
        screen.show(1, 30, [1.0, 1.0, 0.0, 1.0])
        before = terminal.getvalue()
        terminal.error = OSError(number, os.strerror(number))
        for epoch in (1, 2):
            screen.show(epoch, 30 * epoch, [1.0, 1.0, 0.0, 1.0])
            screen.say(f"epoch {epoch}/2")
    assert terminal.getvalue() == before


def test_the_bar_ends_when_training_fails():
    with on_a_terminal() as terminal, pytest.raises(KeyError):
        with Screen(done=0, total=60) as screen:
            screen.show(1, 30, [1.0, 1.0, 0.0, 1.0])
            raise KeyError
    assert "30/60" in terminal.lines()[0] and terminal.lines()[1:] == [""]
