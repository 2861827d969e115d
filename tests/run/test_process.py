import contextlib
import importlib.util
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile

import pytest
import tensorflow as tf

from core.run import process
from tests.conftest import ROOT


def python(script, *arguments, by=(), env=os.environ, **keywords):
    """A process that runs this script; Python buffers what it prints to a pipe."""
    command = [*by, sys.executable, "-B", "-c", script, *arguments]
    env = {k: v for k, v in env.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, cwd=ROOT, env=env, **keywords)


def ended(script, *arguments, **keywords):
    """(exit code, standard output, standard error) of a process that has ended."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    found = python(script, *arguments, **pipes, **keywords)
    out, err = found.communicate(timeout=20)
    return found.returncode, out, err


# --- Streams --------------------------------------------------------------------------


def test_streams_that_were_closed_are_opened(tmp_path):
    """Else the first file that is opened would be taken for standard output."""
    script = """if True:
        import sys
        from core.run import process
        process.prepare()
        with open(sys.argv[1], "w") as file:
            print("to nobody")
            print("nor this", file=sys.stderr)
            file.write(str(file.fileno()))
    """
    closed = ("sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-')
    assert python(script, str(tmp_path / "file"), by=closed).wait() == 0
    assert int((tmp_path / "file").read_text()) > 2


def test_a_narrow_stream_spells_what_it_cannot_print():
    script = """if True:
        import sys
        from core.run import process
        process.prepare()
        print("stra\\u00efght")
        print("stra\\u00efght", file=sys.stderr)
    """
    narrow = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    spelled = b"stra\\xefght\n"
    assert ended(script, env=narrow) == (0, spelled, spelled)


@pytest.mark.parametrize("closed", [False, True])
def test_streams_that_are_no_files_are_left_as_they_are(monkeypatch, closed):
    """A notebook's have no `reconfigure`, and some have no `fileno`."""

    class Stream:
        def write(self, text):
            if closed:
                raise ValueError("I/O operation on closed file")

    streams = Stream(), Stream()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    process.prepare()
    assert (sys.stdout, sys.stderr) == streams


@pytest.mark.parametrize("name", process.NEEDED)
def test_a_package_that_is_missing_is_said_in_a_line(monkeypatch, name):
    """Before anything else is done, so that nothing is to be put back."""
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda asked: None if asked == name else asked
    )
    before = signal.getsignal(signal.SIGINT), dict(os.environ)
    with pytest.raises(SystemExit) as exit:
        process.prepare()
    message = str(exit.value)
    assert message.startswith(f"error: the Python package {name} is not installed for ")
    assert sys.executable in message and "requirements.txt" in message
    assert len(message.replace(sys.executable, "")) < 200 and "\n" not in message
    assert before == (signal.getsignal(signal.SIGINT), dict(os.environ))


def test_it_is_said_by_a_python_outside_of_the_environment():
    """Which has none of them; its own modules are all that is there to say so."""
    script = """if True:
        import sys
        sys.path = [path for path in sys.path if "site-packages" not in path]
        from core.run import process
        process.prepare()
    """
    code, out, err = ended(script)
    assert (code, out, err.count(b"\n")) == (1, b"", 1)
    assert b"error: the Python package absl is not installed" in err


BACKENDS = {  # what a notebook's kernel, or a user, set for programs of theirs
    "module": ("module://a_package_of_the_notebook.backend_inline", None),
    "module of no name": ("module://", None),
    "this program": ("module://__main__", None),
    "a name": ("inline", None),
    "another name": ("widget", None),
    "there": ("module://matplotlib.backends.backend_agg", True),
    "empty": ("", None),
}


@pytest.mark.parametrize("value, kept", BACKENDS.values(), ids=BACKENDS)
def test_figures_need_no_backend_that_is_not_installed(value, kept):
    """With one that it does not know, matplotlib cannot be imported."""
    script = """if True:
        import os
        from core.run import process
        process.begin()
        print(os.environ.get("MPLBACKEND"))
    """
    found = ended(script, env=os.environ | {"MPLBACKEND": value})
    assert found[0] == 0 and found[2] == b""
    assert found[1].decode().strip() in {"None", value if kept else ""}


def test_a_variable_that_tqdm_cannot_read_is_named():
    script = "from core.run import process; process.prepare()"
    found = ended(script, env=os.environ | {"TQDM_MININTERVAL": "abc"})
    assert found[:2] == (1, b"") and found[2].startswith(b"error: a variable TQDM_")
    assert found[2].count(b"\n") == 1 and b"abc" in found[2]


def test_beginning_gives_interrupts_their_plain_meaning_and_quiets_tensorflow():
    """Until there is something to save, Ctrl-C ends the program without a traceback."""
    script = """if True:
        import os, signal
        from core.run import process
        process.begin()
        print(os.environ["TF_CPP_MIN_LOG_LEVEL"], flush=True)
        signal.raise_signal(signal.SIGINT)
        print("went on")
    """
    rest = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    assert ended(script, env=rest) == (-signal.SIGINT, b"3\n", b"")
    loud = rest | {"TF_CPP_MIN_LOG_LEVEL": "0"}  # a user's own wish
    assert ended(script, env=loud) == (-signal.SIGINT, b"0\n", b"")
    ignored = ("sh", "-c", 'trap "" INT; exec "$0" "$@"')  # as in the background
    assert ended(script, env=rest, by=ignored) == (0, b"3\nwent on\n", b"")


CHATTER = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 port.cc:153] oneDNN custom operations are on. You may see slightly different
I0000 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be
W0000 gpu_device.cc:2] could not find cuda drivers
I0000 cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use available CPU
To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild
E0000 cuda_dnn.cc:8310] Unable to register cuDNN factory: Attempting to register
E0000 cuda_blas.cc:1418] unable to register cuBLAS factory
W0000 computation_placer.cc:177] computation placer already registered. Please check
""".splitlines(keepends=True)

DURING = """if True:
    import os, sys
    from core.run import process
    with process.importing():
        for line in sys.argv[2:]:
            os.write(2, line.encode())
        exec(sys.argv[1])
    os.write(2, b"after\\n")
"""


@pytest.mark.parametrize("line", CHATTER, ids=lambda line: line.split()[-1])
def test_chatter_is_kept_from_standard_error(line):
    """Its lines alone, and only for a while."""
    lines = "first\n", line, "last\n"
    expected = b"first\nlast\nafter\n"
    assert ended(DURING, "", *lines) == (0, b"", expected)


def test_all_else_is_passed_on_whatever_writes_it():
    what = "print('by Python', file=sys.stderr); os.system('echo by a child >&2')"
    found = ended(DURING, what, "a line\n", *CHATTER)
    assert found == (0, b"", b"a line\nby Python\nby a child\nafter\n")
    assert ended(DURING, "", "no end of line")[2] == b"no end of lineafter\n"
    long = "x" * 100_000 + "\n"
    assert ended(DURING, "", long) == (0, b"", f"{long}after\n".encode())


def test_what_is_said_before_an_abort_is_seen():
    last_words = "F0000 Check failed: the driver is too old\n"
    abort = "import resource as r; r.setrlimit(r.RLIMIT_CORE, (0, 0)); os.abort()"
    found = ended(DURING, abort, *CHATTER, last_words)
    assert found == (-signal.SIGABRT, b"", last_words.encode())


def test_an_interrupt_is_not_for_the_process_that_passes_it_on():
    """A terminal's Ctrl-C goes to all that are in its foreground."""
    during = """if True:
        import signal
        signal.signal(signal.SIGINT, lambda *arguments: None)
        os.killpg(0, signal.SIGINT)
        os.write(2, b"still said\\n")
    """
    found = ended(DURING, during, *CHATTER, start_new_session=True)
    assert found == (0, b"", b"still said\nafter\n")


def test_an_error_in_its_midst_is_a_line_and_leaves_nothing_behind():
    """Standard error is its own again, and no process waits to be waited for."""
    script = """if True:
        import os
        from core.run import process
        before = sorted(os.listdir("/proc/self/fd"))
        try:
            with process.importing():
                raise ImportError
        except SystemExit:
            os.write(2, b"oneDNN custom operations, said by the program itself")
        assert sorted(os.listdir("/proc/self/fd")) == before
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child")
    """
    said = b"oneDNN custom operations, said by the program itself"
    assert ended(script) == (0, b"no child\n", said)
    code, _, errors = ended(DURING, "raise ImportError('cannot map\\nsegment')")
    assert code == 1 and errors.count(b"\n") == 1
    assert errors.startswith(b"error: TensorFlow cannot be imported by /")
    assert b" (ImportError: cannot map segment): install" in errors


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_not_looked_for_among_what_is_imported(collects):
    """Nor as the process ends; what a caller has set comes back."""
    script = f"""if True:
        import atexit, gc
        from core.run import process
        atexit.register(lambda: print("at the end", gc.get_freeze_count() > 1000))
        {"" if collects else "gc.disable()"}
        with process.importing():
            print(gc.isenabled())
        print(gc.isenabled(), gc.get_freeze_count() > 1000)
        process.Stop("").end()
        print(gc.isenabled(), gc.get_freeze_count())
    """
    said = f"False\n{collects} True\n{collects} 0\nat the end True\n"
    assert ended(script) == (0, said.encode(), b"")


def test_what_was_printed_before_is_printed_once():
    """The other process has a copy of what was not written yet."""
    script = """if True:
        from core.run import process
        print("once")
        with process.importing():
            pass
    """
    assert ended(script) == (0, b"once\n", b"")


# --- The command that goes on ---------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "resume", "changed", "expected"),
    [
        ([], "auto", [], []),
        (["--epochs=3"], "required", [], ["--epochs=3"]),
        (["--resume=never"], "never", [], ["--resume=auto"]),
        (["--beta=2", "--epochs=3"], "auto", ["--beta=1"], ["--epochs=3", "--beta=1"]),
        (
            ["--beta1=0.5", "--beta=2", "--beta=3"],  # the one that is named, each time
            "auto",
            ["--beta=1", "--epochs=9"],
            ["--beta1=0.5", "--beta=1", "--epochs=9"],
        ),
        (["--run_dir=my run's; rm"], "auto", [], ["--run_dir=my run's; rm"]),
        (["--epochs=3", "--"], "auto", ["--beta=1"], ["--epochs=3", "--beta=1"]),
    ],
    ids=["nothing", "kept", "never", "changed", "twice", "quoted", "dashes"],
)
def test_the_command_that_goes_on(monkeypatch, typed, resume, changed, expected):
    """As a shell reads it; of a flag given twice, absl takes the last."""
    monkeypatch.setattr(sys, "argv", ["loop.py", *typed])
    found = shlex.split(process.command(resume, *changed))
    assert found == [sys.executable, "loop.py", *expected]


def test_what_python_has_called_has_no_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/a/ipykernel_launcher.py", "-f", "kernel.json"])
    assert process.command("auto") == "the same call"
    assert process.command("auto", "--epochs=3") == "the same call with --epochs=3"
    assert process.command("never") == "the same call with --resume=auto"


# --- Memory ---------------------------------------------------------------------------


def test_what_autograph_wrote_is_removed_once_it_is_traced(tmp_path, monkeypatch):
    """Else each killed run would leave files in the temporary folder."""
    mine = tmp_path / "__autograph_generated_file_of_mine.py"
    mine.write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @tf.function
    def traced(x):
        for _ in tf.range(x):
            x += 1
        return x

    assert int(traced(tf.constant(2))) == 4
    assert len(list(tmp_path.glob("*.py"))) == 2
    for _ in range(2):
        process.tidy()
        assert list(tmp_path.glob("*.py")) == [
            mine
        ]  # it is of no module of this process
    assert int(traced(tf.constant(2))) == 4
    assert float(traced(tf.constant(2.5))) == 5.5  # traced anew


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
def test_freed_memory_goes_back_to_the_system():
    script = """if True:
        import numpy as np
        from core.run import process
        def megabytes():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096 / 1e6
        blocks = [np.ones(8000) for _ in range(1600)]  # 102 MB, then free but the last
        last = blocks.pop()
        del blocks
        before = megabytes()
        process.tidy()
        print(before - megabytes())
    """
    answer = python(script, stdout=subprocess.PIPE).communicate()[0]
    assert float(answer) > 80


# --- Signals --------------------------------------------------------------------------


def handling():
    """{signal: its handler}, of those that the program may handle."""
    return {n: signal.getsignal(n) for n in (*process.ENDING, signal.SIGCONT)}


@pytest.fixture
def handlers(monkeypatch):
    """The handlers of all signals, which are put back. None is ignored at first, as
    SIGHUP is under nohup, and SIGINT in a script's background."""
    monkeypatch.setattr(process, "_undo", contextlib.ExitStack())
    before = handling()
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield handling()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_that_comes_during_an_exchange_is_not_lost():
    stop = process.NoStop()

    def exchange(number):
        stop.asked = 15  # as a signal's handler does
        return number

    stop.exchange = exchange
    assert stop.signal == 0 and stop.signal == 15 == stop.asked


@pytest.mark.parametrize("number", process.ENDING, ids=lambda number: number.name)
def test_a_signal_is_deferred_in_training(handlers, number):
    stop = process.Stop("")
    assert stop.signal == 0 and not stop.deferred
    stop.deferred = True
    signal.raise_signal(number)
    assert stop.signal == number
    for each in process.ENDING:  # for the second signal, of whichever kind
        assert signal.getsignal(each) == signal.SIG_DFL


def test_the_signals_that_end_it_are_those_of_a_user_a_system_and_a_terminal():
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    assert len(process.ENDING) == 3 and set(process.ENDING) == ending


@pytest.mark.parametrize("number", process.ENDING, ids=lambda number: number.name)
def test_a_signal_that_a_parent_ignored_stays_ignored(handlers, number):
    """As by nohup, and in a script's background; another does not change it."""
    signal.signal(number, signal.SIG_IGN)
    stop = process.Stop("")
    stop.deferred = True
    signal.raise_signal(number)
    assert not stop.signal and signal.getsignal(number) == signal.SIG_IGN
    other = next(each for each in process.ENDING if each != number)
    signal.raise_signal(other)
    assert stop.signal == other and signal.getsignal(number) == signal.SIG_IGN
    stop.end()
    assert handling() == handlers | {number: signal.SIG_IGN}


@pytest.mark.parametrize("stopped", [False, True])
def test_afterwards_signals_are_handled_as_before(handlers, stopped):
    """By whatever is there after a run, such as a notebook."""
    signal.signal(signal.SIGTERM, mine := lambda *arguments: None)
    before = handlers | {signal.SIGTERM: mine}
    for _ in range(2):
        stop = process.Stop("")
        assert not set(handling().values()) & set(before.values())
        stop.deferred = True
        if stopped:
            signal.raise_signal(signal.SIGINT)
        stop.end()
        assert handling() == before


@pytest.mark.parametrize("card", [True, False], ids=["a card", "none"])
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "conv"])
def test_equal_bits_are_asked_of_a_gpu_where_that_is_not_too_slow(card, dense):
    """A user's own flags come after the program's, and so count; afterwards the
    environment is as before."""
    script = """if True:
        import os, sys
        from core.run import process
        process.GPU = sys.argv[1]
        process.begin(dense=sys.argv[2] == "True")
        print(os.environ.get("XLA_FLAGS"), "|")
        process.Stop("farewell").end()
        print(os.environ.get("XLA_FLAGS"), os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH"))
    """
    rest = {k: v for k, v in os.environ.items() if not k.startswith(("XLA", "TF_"))}
    arguments = script, os.devnull if card else "/nowhere", str(dense)
    asked = process.EQUAL_BITS if card and dense else None
    plain = ended(*arguments, env=rest)
    assert plain == (0, f"{asked and asked + ' '} |\nNone None\n".encode(), b"")
    theirs = f"{asked} --a=b" if asked else "--a=b"
    found = ended(*arguments, env=rest | {"XLA_FLAGS": "--a=b"})
    assert found == (0, f"{theirs} |\n--a=b None\n".encode(), b"")


def test_a_place_that_is_gone_is_said_in_a_line(tmp_path):
    script = """if True:
        import os
        from core.run import process
        here = os.path.join(os.environ["HERE"], "here")
        os.mkdir(here)
        os.chdir(here)
        os.rmdir(here)
        process.prepare()
    """
    code, _, errors = ended(script, env=os.environ | {"HERE": str(tmp_path)})
    assert code == 1 and errors.count(b"\n") == 1
    assert errors.startswith(b"error: expected a working directory")


def test_what_is_half_written_goes_as_a_signal_ends_the_process(tmp_path):
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        from core.run import files, process
        stop = process.Stop("farewell")
        module = type(sys)("__autograph_generated_file")
        module.__file__ = sys.argv[1] + ".py"
        Path(module.__file__).write_text("")
        sys.modules[module.__name__] = module
        with files.whole(Path(sys.argv[1])) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGTERM)
    """
    path = tmp_path / "file"
    path.write_text("before")
    assert ended(script, str(path)) == (128 + signal.SIGTERM, b"farewell\n", b"")
    assert path.read_text() == "before" and [*tmp_path.iterdir()] == [path]


CELL = """if True:
    import os, signal, sys
    from core.run import process
    print(process.is_own())
    process.begin()
    try:
        with process.importing():
            os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print(os.environ["MPLBACKEND"])
    process.begin()
    stop = process.Stop("farewell")
    stop.deferred = sys.argv[2] == "True"
    try:
        os.kill(os.getpid(), signal.SIGINT)
        print(int(stop.signal))
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        stop.end()
"""
NOTEBOOK = """if True:
    import runpy, signal, sys
    before = signal.getsignal(signal.SIGINT)
    try:
        runpy.run_path(sys.argv[1], run_name="__main__")
    except KeyboardInterrupt:
        print("interrupted", signal.getsignal(signal.SIGINT) is before)
"""


@pytest.mark.parametrize("deferred", [True, False])
def test_an_interrupt_does_not_end_a_notebooks_process(tmp_path, deferred):
    """In training it is kept, once; else the cell ends, and the notebook goes on."""
    (tmp_path / "cell.py").write_text(CELL)
    env = os.environ | {"MPLBACKEND": "agg"}
    found = ended(NOTEBOOK, f"{tmp_path}/cell.py", str(deferred), env=env)
    kept = "2\n" * deferred
    assert found == (0, f"False\nagg\n{kept}interrupted True\n".encode(), b"")


@pytest.mark.parametrize("way", [["FILE"], ["-m", "this"]], ids=" ".join)
def test_the_programs_own_process_is_known(tmp_path, way):
    script = "from core.run import process; print(process.is_own())"
    (tmp_path / "this.py").write_text(script)
    way = [part.replace("FILE", str(tmp_path / "this.py")) for part in way]
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    command = [sys.executable, "-B", *way]
    assert subprocess.check_output(command, env=env, cwd=tmp_path) == b"True\n"


def test_afterwards_is_as_before_the_program_not_as_it_was_prepared():
    script = """if True:
        import signal
        from core.run import process
        names = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT
        before = list(map(signal.getsignal, names))
        for _ in range(2):  # by %run, one after the other
            process.begin()
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
            stop = process.Stop("farewell")
            stop.end()
            assert list(map(signal.getsignal, names)) == before
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            print("interrupted")
    """
    assert ended(script) == (0, b"interrupted\n", b"")


def test_a_pause_is_of_the_epoch_that_it_was_in(handlers):
    """SIGCONT tells of it; that the process was stopped, nothing does."""
    stop = process.Stop("")
    assert stop.pauses() == {}
    signal.raise_signal(signal.SIGCONT)
    signal.raise_signal(signal.SIGCONT)
    assert stop.pauses() == {"paused": True}
    assert stop.pauses() == {} and not stop.signal
    stop.end()
    assert process.NoStop().pauses() == {}


def test_a_process_that_was_stopped_and_went_on_knows_it():
    script = """if True:
        import sys
        from core.run import process
        stop = process.Stop("farewell")
        print("ready", flush=True)
        sys.stdin.read()
        print(stop.pauses(), stop.signal)
    """
    found = python(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    found.stdout.readline()
    found.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, found.pid, os.WSTOPPED)
    found.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, found.pid, os.WCONTINUED)
    assert found.communicate(timeout=20)[0] == b"{'paused': True} 0\n"


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_elsewhere_a_signal_ends_the_program_wherever_it_is(number):
    """In a destructor Python would drop an exception, and print that it did."""
    script = f"""if True:
        import signal
        from core.run import process
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # not as under nohup
        stop = process.Stop("farewell")
        class Last:
            def __del__(self):
                signal.raise_signal(signal.{number})
        Last()
        print("went on")
    """
    code = 128 + getattr(signal, number)
    assert ended(script) == (code, b"farewell\n", b"")


def test_it_does_so_when_nobody_reads_the_farewell():
    script = """if True:
        import signal
        from core.run import process
        process.Stop("farewell")
        signal.raise_signal(signal.SIGTERM)
    """
    closed = ("sh", "-c", 'exec "$0" "$@" >&-')
    assert ended(script, by=closed) == (128 + signal.SIGTERM, b"", b"")


def test_the_second_signal_ends_a_training_that_does_not_stop():
    script = """if True:
        import signal
        from core.run import process
        stop = process.Stop("farewell")
        stop.deferred = True
        signal.raise_signal(signal.SIGINT)
        print("still there", flush=True)
        signal.raise_signal(signal.SIGTERM)
        print("went on")
    """
    assert ended(script) == (-signal.SIGTERM, b"still there\n", b"")


def test_without_signals_nothing_asks_training_to_stop(handlers):
    stop = process.NoStop()
    assert not stop.signal and not stop.deferred
    stop.deferred = True  # training says so of every stop
    assert not process.NoStop().deferred and not stop.signal
    assert handling() == handlers


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_at_the_very_end_changes_nothing(number):
    """All is written, and Python shuts down."""
    script = f"""if True:
        import atexit, signal
        atexit.register(lambda: (signal.raise_signal(signal.{number}), print("end")))
        from core.run import process
        process.begin()
        process.Stop("farewell").end()
        raise SystemExit(3)
    """
    assert ended(script) == (3, b"end\n", b"")
