"""Signs of life: bars on a terminal, lines everywhere."""

import contextlib
import os
import sys

import tqdm

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
    """A bar that ends nothing where it cannot be drawn."""

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
    """A bar on a terminal alone, of its width; none where TQDM_DISABLE is set."""
    more["disable"] = os.environ.get("TQDM_DISABLE", "") not in ("", "0") or None
    return _Bar(total=total, unit=unit, desc=desc, dynamic_ncols=True, **more)
