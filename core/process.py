"""The process that the program is: its streams, memory, and signals that end it."""

import contextlib
import ctypes
import os
import signal
import sys

ENDING = (signal.SIGINT, signal.SIGTERM)


# --- Streams --------------------------------------------------------------------------


def open_closed_streams() -> None:
    """Give standard streams that were closed, as by some schedulers, a place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout, sys.stderr = sys.stdout or open(1, "w"), sys.stderr or open(2, "w")


@contextlib.contextmanager
def stderr_off():
    """Nothing is written to standard error, not even by libraries in C++."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def say(text: str) -> None:
    """Print a line; the program goes on when nobody reads (`| head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- Memory ---------------------------------------------------------------------------


def return_memory() -> None:
    """Give freed memory back to the system, which glibc by itself would keep."""
    with contextlib.suppress(AttributeError):  # there are other C libraries
        ctypes.CDLL(None).malloc_trim(0)


# --- Signals --------------------------------------------------------------------------


class Stop:
    """What SIGINT and SIGTERM do. While `deferred` is set, as in training, the first of
    them is kept in `signal`, for training to save and end; otherwise it ends the
    process at once, with `farewell`. The second always ends it at once.

    It does not raise an exception: TensorFlow's C++ would crash on one in its midst,
    and Python would drop one in a destructor.
    """

    signal = 0
    deferred = False

    def __init__(self, farewell: str):
        self._farewell = f"{farewell}\n".encode()
        for number in ENDING:
            signal.signal(number, self._request)

    def _request(self, number, frame):
        for either in ENDING:
            signal.signal(either, signal.SIG_DFL)
        self.signal = number
        if not self.deferred:
            with contextlib.suppress(OSError):  # nobody reads
                os.write(1, self._farewell)
            os._exit(128 + number)


def ignore_signals() -> None:
    """All is written: a signal while Python shuts down changes nothing."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
