"""The process that the program is: its streams, memory, and signals that end it."""

import atexit
import contextlib
import ctypes
import gc
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import tempfile

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NEEDED = ("absl", "numpy", "tensorflow", "matplotlib", "tqdm")
GPU = "/dev/nvidiactl"  # is there where a driver is
DEFAULTS = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
ENVIRONMENT = (*DEFAULTS, "XLA_FLAGS", "MPLBACKEND")
# For a GPU XLA chooses kernels by timing them, and so differently in each process. With
# these flags it does not, at a quarter more time; convolutions would stand still.
EQUAL_BITS = "--xla_gpu_exclude_nondeterministic_ops=true"
EQUAL_BITS += " --xla_gpu_enable_triton_gemm=false"
CHATTER = (  # what TensorFlow says at its import, whatever one asks
    rb"before absl::InitializeLog|oneDNN custom operations|[Cc]ould not find cuda|"
    rb"TensorFlow binary is optimized|To enable the following instructions|"
    rb"[Uu]nable to register cu|computation placer already registered"
)
FILTER = f"""if True:
    import re, sys
    print(flush=True)
    for line in sys.stdin.buffer:
        if not re.search({CHATTER!r}, line):
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
"""
unfinished = set()  # paths of files that are being written; `Stop` removes them
_undo = contextlib.ExitStack()  # puts back what `begin` and `Stop` change

# --- Streams and environment ----------------------------------------------------------


def prepare() -> None:
    """Make the process that of the program, before anything slow is imported: look for
    packages, and give streams that were closed, as by some schedulers, a place."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            sys.exit(
                f"error: the Python package {name} is not installed for "
                f"{sys.executable}: run the program with the Python of its environment "
                "(.venv/bin/python), or install requirements.txt"
            )
    try:
        importlib.import_module("tqdm")
        os.getcwd(), tempfile.gettempdir()
    except ValueError as error:
        sys.exit(f"error: a variable TQDM_... of the environment: {error}")
    except OSError as error:
        sys.exit(
            "error: expected a working directory that is still there, and a folder for "
            f"temporary files (TMPDIR): {error}"
        )
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout, sys.stderr = sys.stdout or open(1, "w"), sys.stderr or open(2, "w")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's have none
            stream.reconfigure(errors="backslashreplace")  # a path in a narrow locale


def begin(dense: bool = True) -> None:
    """Set what TensorFlow reads at its import, for a `dense` model or another, and let
    Ctrl-C end the process at once, if it is the program's own: there is nothing to save
    yet. `Stop.end` undoes it."""
    if is_own():
        _handle(signal.SIGINT, signal.SIG_DFL)
    before = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    _undo.callback(os.environ.update, before)
    for name in ENVIRONMENT:
        _undo.callback(os.environ.pop, name, None)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if dense and os.path.exists(GPU):  # a user's own flags come last, and count
        os.environ["XLA_FLAGS"] = f"{EQUAL_BITS} {before.get('XLA_FLAGS', '')}"
    kind, _, module = before.get("MPLBACKEND", "").partition("://")
    with contextlib.suppress(ValueError):  # that is no module of its own
        if kind == "module" and importlib.util.find_spec(module.split(".")[0]):
            return
    os.environ.pop("MPLBACKEND", None)  # a notebook's, not here; figures need none


def is_own() -> bool:
    """Whether the process was started for what is `__main__` now, and is not that of a
    notebook, which runs it in a cell."""
    frame = outermost = sys._getframe()
    while frame := frame.f_back:
        if frame.f_globals.get("__name__") != "runpy":  # of python -m
            outermost = frame
    return outermost.f_globals is vars(sys.modules["__main__"])


@contextlib.contextmanager
def importing():
    """TensorFlow's import, without its `CHATTER`, and without a look for garbage among
    its many objects, there or later: a quarter of its time, and half a second at the
    end. If it fails, the process ends in a line."""
    collects = gc.isenabled()
    gc.disable()
    try:
        with _without_chatter():
            yield
    except BaseException as error:
        _undo.close()
        if not isinstance(error, Exception):  # an interrupt in a notebook
            raise
        reason = " ".join(str(error).split())[:200]
        sys.exit(
            f"error: TensorFlow cannot be imported by {sys.executable} "
            f"({type(error).__name__}: {reason}): install requirements.txt anew, or "
            "look at this process's limits and environment"
        )
    finally:
        gc.freeze()
        _undo.callback(gc.unfreeze)
        atexit.register(gc.freeze)
        if collects:
            gc.enable()


@contextlib.contextmanager
def _without_chatter():
    """Keep TensorFlow's `CHATTER` from standard error. Another process passes on all
    other lines: what is said before an abort is seen."""
    saved, pipe = os.dup(2), subprocess.PIPE
    command = [sys.executable, "-ISc", FILTER]
    with subprocess.Popen(  # in its own session: Ctrl-C is not for it
        command, stdin=pipe, stdout=pipe, start_new_session=True
    ) as child:
        child.stdout.readline()  # it is ready: this process may die at once
        os.dup2(child.stdin.fileno(), 2)
        child.stdin.close()
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def command(resume: str, *changed: str) -> str:
    """The command line that goes on with this run; of a flag given twice, the last."""
    changed = (*["--resume=auto"] * (resume == "never"), *changed)
    if os.path.basename(sys.argv[0]) not in ("loop.py", "-m"):  # as from a notebook
        return f"the same call{' with ' * bool(changed)}{' '.join(changed)}"
    names = tuple(flag.split("=")[0] + "=" for flag in changed)
    kept = [f for f in sys.argv if f != "--" and not f.startswith(names)]
    return shlex.join([sys.executable, *kept, *changed])


# --- Memory ---------------------------------------------------------------------------


def tidy() -> None:
    """Give back what tracing and compiling left: memory and files."""
    with contextlib.suppress(AttributeError):  # glibc's alone, which would keep it
        ctypes.CDLL(None).malloc_trim(0)
    remove_generated()


def remove_generated() -> None:
    """Remove AutoGraph's files, which nothing reads, and a killed process leaves."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file"):
            with contextlib.suppress(OSError):
                os.unlink(module.__file__)


# --- Signals --------------------------------------------------------------------------


def _handle(number: int, handler) -> None:
    """Handle a signal until `Stop.end`, unless a parent had it ignored."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        _undo.callback(signal.signal, number, signal.signal(number, handler))


class NoStop:
    """Nothing asks training to stop."""

    asked, deferred = 0, False
    exchange = staticmethod(int)  # what any process of a run was asked, if it has more

    @property
    def signal(self) -> int:
        """The signal that asks, 0 for none."""
        found = self.exchange(self.asked)
        if found:  # else a signal may have come meanwhile
            self.asked = found
        return found

    def pauses(self) -> dict:
        """What an epoch's record says of pauses in it: nothing."""
        return {}


class Stop(NoStop):
    """What SIGINT, SIGTERM and SIGHUP do, unless a parent had them ignored.

    While `deferred` is set, as in training, the first of them is kept in `asked`, for
    training to save and end; else it ends the process at once, with `farewell`, as the
    second always does. It raises no exception: TensorFlow's C++ would crash on one in
    its midst, and Python would drop one in a destructor. In a notebook's process, which
    has more to lose, SIGINT raises KeyboardInterrupt instead of an end at once.
    """

    _paused = False

    def __init__(self, farewell: str):
        self._farewell = f"{farewell}\n".encode()
        self._second = dict.fromkeys(ENDING, signal.SIG_DFL)
        if not is_own():
            self._second[signal.SIGINT] = signal.default_int_handler
        for number in ENDING:
            _handle(number, self._request)
        _handle(signal.SIGCONT, self._go_on)

    def _request(self, number, frame):
        for each, second in self._second.items():
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, second)
        self.asked = number
        if self.deferred:
            return
        if self._second[number] is signal.default_int_handler:
            raise KeyboardInterrupt
        remove_generated()
        for path in unfinished:
            with contextlib.suppress(OSError):
                os.unlink(path)
        with contextlib.suppress(OSError):  # nobody reads
            os.write(1, self._farewell)
        os._exit(128 + number)

    def _go_on(self, number, frame):
        self._paused = True

    def pauses(self) -> dict:
        """What an epoch's record says if the process was stopped in it and went on
        (SIGCONT), which no clock leaves out."""
        paused, self._paused = self._paused, False
        return {"paused": True} if paused else {}

    def end(self) -> None:
        """Leave signals and environment as they were. While Python shuts down signals
        change nothing: all is written."""
        _undo.close()
        for number in ENDING:
            atexit.register(signal.signal, number, signal.SIG_IGN)
