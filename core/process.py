"""The process that the program is: its streams, memory, and signals that end it."""

import contextlib
import ctypes
import os
import signal
import sys
import threading

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


class Interrupted(BaseException):
    """A signal asked the program to stop."""


class Stop:
    """The first SIGINT or SIGTERM: noted in training, which saves; else obeyed at once.

    The second ends the program wherever it is.
    """

    signal = 0
    noted = False

    def __init__(self):
        self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        self._listen()

    def _listen(self):
        for number in ENDING:
            signal.signal(number, self._request)

    def _request(self, number, frame):
        for either in ENDING:
            signal.signal(either, signal.SIG_DFL)
        self.signal = number
        if not self.noted:
            raise Interrupted

    def _swallowed(self, unraisable):
        """Python drops exceptions in a destructor: ask again a little later."""
        if unraisable.exc_type is not Interrupted:
            return self._hook(unraisable)
        self._listen()
        threading.Timer(0.02, os.kill, (os.getpid(), self.signal)).start()


def ignore_signals() -> None:
    """All is written: a signal while Python shuts down changes nothing."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
