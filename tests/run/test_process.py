import os
import platform
import shlex
import signal
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("function", ["open_closed_streams", "prepare"])
def test_streams_that_were_closed_are_opened(tmp_path, function):
    """Else the first file that is opened would be taken for standard output."""
    script = f"""if True:
        import sys
        from core.run import process
        process.{function}()
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
        process.open_closed_streams()
        print("stra\\u00efght")
        print("stra\\u00efght", file=sys.stderr)
    """
    narrow = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    spelled = b"stra\\xefght\n"
    assert ended(script, env=narrow) == (0, spelled, spelled)


def test_preparing_gives_interrupts_their_plain_meaning_and_quiets_tensorflow():
    """Until there is something to save, Ctrl-C ends the program without a traceback."""
    script = """if True:
        import os, signal
        from core.run import process
        process.prepare()
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
    with process.without_chatter():
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


def test_an_error_in_its_midst_is_shown_and_leaves_nothing_behind():
    """Standard error is its own again, and no process waits to be waited for."""
    script = """if True:
        import os
        from core.run import process
        before = sorted(os.listdir("/proc/self/fd"))
        try:
            with process.without_chatter():
                raise KeyError
        except KeyError:
            os.write(2, b"oneDNN custom operations, said by the program itself")
        assert sorted(os.listdir("/proc/self/fd")) == before
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child")
    """
    said = b"oneDNN custom operations, said by the program itself"
    assert ended(script) == (0, b"no child\n", said)
    code, _, errors = ended(DURING, "raise KeyError('why')")
    assert code == 1 and errors.endswith(b"KeyError: 'why'\n")


def test_what_was_printed_before_is_printed_once():
    """The other process has a copy of what was not written yet."""
    script = """if True:
        from core.run import process
        print("once")
        with process.without_chatter():
            pass
    """
    assert ended(script) == (0, b"once\n", b"")


def test_what_is_said_is_a_line_at_once():
    script = """if True:
        import os
        from core.run.process import say
        say("seen")
        os._exit(0)  # nothing is flushed
    """
    assert ended(script) == (0, b"seen\n", b"")


def test_what_is_said_to_a_reader_that_left_is_no_error():
    script = "from core.run.process import say; [say(9999 * 'x') for _ in range(50)]"
    speaker = python(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    speaker.stdout.close()
    assert speaker.stderr.read() == b"" and speaker.wait() == 0
    speaker.stderr.close()


# --- The command that goes on ---------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "resume", "changed", "expected"),
    [
        ([], "auto", [], []),
        (["--epochs=3"], "required", [], ["--epochs=3"]),
        (["--resume=never"], "never", [], ["--resume=never", "--resume=auto"]),
        (["--beta=2", "--epochs=3"], "auto", ["--beta=1"], ["--epochs=3", "--beta=1"]),
        (
            ["--beta1=0.5", "--beta=2", "--beta=3"],  # the one that is named, each time
            "auto",
            ["--beta=1", "--epochs=9"],
            ["--beta1=0.5", "--beta=1", "--epochs=9"],
        ),
        (["--run_dir=my run's; rm"], "auto", [], ["--run_dir=my run's; rm"]),
    ],
    ids=["nothing", "kept", "never", "changed", "twice", "quoted"],
)
def test_the_command_that_goes_on(monkeypatch, typed, resume, changed, expected):
    """As a shell reads it; of a flag given twice, absl takes the last."""
    monkeypatch.setattr(sys, "argv", ["loop.py", *typed])
    found = shlex.split(process.command(resume, *changed))
    assert found == [sys.executable, "loop.py", *expected]


# --- Memory ---------------------------------------------------------------------------


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
        process.return_memory()
        print(before - megabytes())
    """
    answer = python(script, stdout=subprocess.PIPE).communicate()[0]
    assert float(answer) > 80


# --- Signals --------------------------------------------------------------------------


@pytest.fixture
def handlers():
    """The handlers of both signals, which are put back."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield handlers
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_deferred_in_training(handlers, number):
    stop = process.Stop("")
    assert stop.signal == 0 and not stop.deferred
    stop.deferred = True
    signal.raise_signal(number)
    assert stop.signal == number
    for either in handlers:  # for the second signal, of whichever kind
        assert signal.getsignal(either) == signal.SIG_DFL


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_elsewhere_a_signal_ends_the_program_wherever_it_is(number):
    """In a destructor Python would drop an exception, and print that it did."""
    script = f"""if True:
        import signal
        from core.run import process
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
    assert {n: signal.getsignal(n) for n in handlers} == handlers


def test_a_signal_at_the_very_end_changes_nothing(handlers):
    process.ignore_signals()
    for number in handlers:
        signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_IGN
