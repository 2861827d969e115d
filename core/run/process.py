"""The process that the program is: its streams, memory, and signals that end it."""

import atexit
import contextlib
import ctypes
import importlib.util
import os
import shlex
import signal
import subprocess
import sys

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NEEDED = ("absl", "numpy", "tensorflow", "matplotlib", "tqdm")
CHATTER = (  # what TensorFlow says at its import, whatever one asks
    rb"before absl::InitializeLog|oneDNN custom operations|[Cc]ould not find cuda|"
    rb"TensorFlow binary is optimized|To enable the following instructions|"
    rb"[Uu]nable to register cu|computation placer already registered"
)
_before = {}  # the environment and the handlers of signals, before the program's


# --- Streams --------------------------------------------------------------------------


def prepare() -> None:
    """Make the process that of the program, before anything slow is imported."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            sys.exit(
                f"error: the Python package {name} is not installed for "
                f"{sys.executable}: run the program with the Python of its environment "
                "(.venv/bin/python), or install requirements.txt"
            )
    open_closed_streams()


def begin() -> None:
    """Set what TensorFlow reads at its import, and let Ctrl-C end the process at once:
    there is nothing to save yet. `Stop.end` undoes it."""
    _before.update(environment=dict(os.environ))
    _before.update({number: signal.getsignal(number) for number in ENDING})
    if _before[signal.SIGINT] is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    backend = os.environ.get("MPLBACKEND", "")  # a notebook's, which may not be here
    module = backend.removeprefix("module://").split(".")[0]
    if not backend.startswith("module://") or not importlib.util.find_spec(module):
        os.environ.pop("MPLBACKEND", None)  # no figure needs one


def open_closed_streams() -> None:
    """Give standard streams that were closed, as by some schedulers, a place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout, sys.stderr = sys.stdout or open(1, "w"), sys.stderr or open(2, "w")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's have none
            stream.reconfigure(errors="backslashreplace")  # a path in a narrow locale


@contextlib.contextmanager
def without_chatter():
    """Keep TensorFlow's `CHATTER` from standard error.

    Another process passes on all other lines: what is said before an abort is seen.
    """
    script = (
        "import re, sys\nprint(flush=True)\nfor line in sys.stdin.buffer:\n"
        f"    if not re.search({CHATTER!r}, line):\n"
        "        sys.stderr.buffer.write(line)\n        sys.stderr.flush()"
    )
    command = [sys.executable, "-ISc", script]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
    )
    child.stdout.readline()  # it is ready: this process may die at once
    child.stdout.close()
    saved = os.dup(2)
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        child.wait()


def command(resume: str, *changed: str) -> str:
    """The command line that goes on with this run; of a flag given twice, the last."""
    again = ["--resume=auto"] if resume == "never" else []
    names = tuple(flag.split("=")[0] + "=" for flag in changed)
    kept = [flag for flag in sys.argv if not flag.startswith(names)]
    return shlex.join([sys.executable, *kept, *again, *changed])


# --- Memory ---------------------------------------------------------------------------


def tidy() -> None:
    """Give back what tracing and compiling left: freed memory, which glibc by itself
    would keep, and files, which a killed process would leave."""
    with contextlib.suppress(AttributeError):  # there are other C libraries
        ctypes.CDLL(None).malloc_trim(0)
    remove_generated()


def remove_generated() -> None:
    """Remove the files of AutoGraph, which nothing reads once it has traced."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None) or ""
        if os.path.basename(path).startswith("__autograph_generated_file"):
            with contextlib.suppress(OSError):
                os.unlink(path)


# --- Signals --------------------------------------------------------------------------


class NoStop:
    """Nothing asks training to stop."""

    signal = 0
    deferred = False

    def pauses(self) -> dict:
        """What an epoch's record says of pauses in it: nothing."""
        return {}


class Stop:
    """What SIGINT, SIGTERM and SIGHUP do, unless a parent had them ignored. While
    `deferred` is set, as in training, the first of them is kept in `signal`, for
    training to save and end; otherwise it ends the process at once, with `farewell`.
    The second always ends it at once.

    It does not raise an exception: TensorFlow's C++ would crash on one in its midst,
    and Python would drop one in a destructor.
    """

    signal = 0
    deferred = False
    _paused = False

    def __init__(self, farewell: str):
        self._farewell = f"{farewell}\n".encode()
        self._before = {}
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._request)
        self._before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._go_on)
        self._before |= {n: _before[n] for n in self._before if n in _before}

    def _go_on(self, number, frame):
        self._paused = True

    def pauses(self) -> dict:
        """What the record of an epoch says if the process was stopped in it and went on
        (SIGCONT), which no clock leaves out."""
        paused, self._paused = self._paused, False
        return {"paused": True} if paused else {}

    def _request(self, number, frame):
        for each in ENDING:
            if each in self._before:
                signal.signal(each, signal.SIG_DFL)
        self.signal = number
        if not self.deferred:
            with contextlib.suppress(OSError):  # nobody reads
                os.write(1, self._farewell)
            os._exit(128 + number)

    def end(self) -> None:
        """Leave signals and environment as they were. While Python shuts down signals
        change nothing: all is written."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for name in ("TF_CPP_MIN_LOG_LEVEL", "MPLBACKEND"):
            before = _before.get("environment", os.environ).get(name)
            os.environ.pop(name, None)
            os.environ.update({} if before is None else {name: before})
        atexit.register(_ignore_signals)


def _ignore_signals() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
