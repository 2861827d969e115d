"""Signs of life: bars on a terminal, lines everywhere."""

import contextlib
import math
import os
import sys
import time

import tqdm

QUIET = 30  # seconds after which a line is due where no bar is seen
BROKEN = (OSError, ValueError, AttributeError)  # of a stream that is gone, or bare


def say(text: str) -> None:
    """Print a line. Nobody may read it, which ends nothing: a closed pipe, a terminal
    that is gone, a full disk."""
    _print(text, sys.stdout)


def complain(text: str) -> None:
    """Print a line of what is wrong, to standard error; as `say`."""
    _print(text, sys.stderr)


def _print(text: str, stream) -> None:
    try:
        print(text, file=stream, flush=True)
    except UnicodeError:
        _print(text.encode("ascii", "backslashreplace").decode(), stream)
    except BROKEN:  # from here on all that is written to it goes nowhere
        with contextlib.suppress(*BROKEN), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


class _Bar(tqdm.tqdm):
    """A bar that ends nothing where it cannot be drawn; without a terminal, a line now
    and then."""

    said = math.inf  # when the last line was; never, where none are wanted
    postfix = ""

    def spoken(self):
        """A line has just been said: none is due for a while."""
        self.said = max(self.said, time.monotonic())  # never stays never

    def update(self, n=1):
        if not self.disable:
            return super().update(n)
        self.n += n
        if time.monotonic() > self.said + QUIET:
            self.spoken()
            of = f" of {self.total or 0:,}"
            line = f"{self.n:,}{of * bool(self.total)} {self.unit}, {self.postfix}"
            say(f"{self.desc.removesuffix(': ')}: {line.removesuffix(', ')}")

    def display(self, *how, **more):
        with contextlib.suppress(*BROKEN):
            return super().display(*how, **more)

    def clear(self, *how, **more):
        with contextlib.suppress(*BROKEN):
            super().clear(*how, **more)

    def close(self):
        with contextlib.suppress(*BROKEN):
            super().close()


def bar(total, unit: str, desc: str, **more) -> tqdm.tqdm:
    """A bar on a terminal alone, of its width, and lines elsewhere; neither where
    TQDM_DISABLE is set."""
    more["disable"] = os.environ.get("TQDM_DISABLE", "") not in ("", "0") or None
    found = _Bar(total=total, unit=unit, desc=desc, dynamic_ncols=True, **more)
    if found.disable and not more["disable"]:
        found.desc, found.said = desc, time.monotonic()
        found.unit = "bytes" if unit == "B" else f"{unit}s"
    return found
