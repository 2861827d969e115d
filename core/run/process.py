"""The process that the program is: its streams, memory, and signals that end it."""

import contextlib
import ctypes
import os
import re
import shlex
import signal
import sys

ENDING = (signal.SIGINT, signal.SIGTERM)


CHATTER = re.compile(  # what TensorFlow says at its import, whatever one asks
    rb"before absl::InitializeLog|oneDNN custom operations|[Cc]ould not find cuda|"
    rb"TensorFlow binary is optimized|To enable the following instructions|"
    rb"[Uu]nable to register cu|computation placer already registered"
)


# --- Streams --------------------------------------------------------------------------


def prepare() -> None:
    """Make the process that of a program, before TensorFlow is imported."""
    open_closed_streams()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to save yet
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def open_closed_streams() -> None:
    """Give standard streams that were closed, as by some schedulers, a place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout, sys.stderr = sys.stdout or open(1, "w"), sys.stderr or open(2, "w")
    for stream in (sys.stdout, sys.stderr):  # a path in a narrow locale
        stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def without_chatter():
    """Keep TensorFlow's `CHATTER` from standard error.

    Another process passes on all other lines: what is said before an abort is seen.
    """
    there, here = os.pipe()
    child = os.fork()
    if not child:
        os.close(here)
        with open(there, "rb") as lines:
            for line in lines:
                if not CHATTER.search(line):
                    os.write(2, line)
        os._exit(0)
    saved = os.dup(2)
    os.dup2(here, 2)
    os.close(there)
    os.close(here)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.waitpid(child, 0)


def say(text: str) -> None:
    """Print a line; the program goes on when nobody reads (`| head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command(resume: str, *changed: str) -> str:
    """The command line that goes on with this run; of a flag given twice, the last."""
    again = ["--resume=auto"] if resume == "never" else []
    names = tuple(flag.split("=")[0] + "=" for flag in changed)
    kept = [flag for flag in sys.argv if not flag.startswith(names)]
    return shlex.join([sys.executable, *kept, *again, *changed])


# --- Memory ---------------------------------------------------------------------------


def return_memory() -> None:
    """Give freed memory back to the system, which glibc by itself would keep."""
    with contextlib.suppress(AttributeError):  # there are other C libraries
        ctypes.CDLL(None).malloc_trim(0)


# --- Signals --------------------------------------------------------------------------


class NoStop:
    """Nothing asks training to stop."""

    signal = 0
    deferred = False


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
