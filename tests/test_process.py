import os
import platform
import signal
import subprocess
import sys

import pytest

from core import process
from tests.conftest import ROOT


def python(script, *arguments, by=(), **keywords):
    """A process that runs this script."""
    return subprocess.Popen(
        [*by, sys.executable, "-B", "-c", script, *arguments], cwd=ROOT, **keywords
    )


def test_streams_that_were_closed_are_opened(tmp_path):
    """Else the first file that is opened would be taken for standard output."""
    script = """if True:
        import sys
        from core import process
        process.open_closed_streams()
        with open(sys.argv[1], "w") as file:
            print("to nobody")
            print("nor this", file=sys.stderr)
            file.write(str(file.fileno()))
    """
    closed = ("sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-')
    assert python(script, str(tmp_path / "file"), by=closed).wait() == 0
    assert int((tmp_path / "file").read_text()) > 2


def test_standard_error_is_off_for_a_while(capfd):
    with process.stderr_off():
        os.write(2, b"lost")
    os.write(2, b"kept")
    assert capfd.readouterr().err == "kept"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
def test_freed_memory_goes_back_to_the_system():
    script = """if True:
        import numpy as np
        from core import process
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


def test_what_is_said_to_a_reader_that_left_is_no_error():
    script = "from core.process import say; [say(9999 * 'x') for _ in range(50)]"
    speaker = python(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    speaker.stdout.close()
    assert speaker.stderr.read() == b"" and speaker.wait() == 0
    speaker.stderr.close()


def test_a_signal_is_deferred_in_training():
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop = process.Stop("")
        stop.deferred = True
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        for number in handlers:  # for the second signal, of whichever kind
            assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_elsewhere_a_signal_ends_the_program_wherever_it_is():
    """In a destructor Python would drop an exception, and print that it did."""
    script = """if True:
        import signal
        from core import process
        stop = process.Stop("farewell")
        class Last:
            def __del__(self):
                signal.raise_signal(signal.SIGTERM)
        Last()
        print("went on")
    """
    stopped = python(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert stopped.communicate(timeout=20) == (b"farewell\n", b"")
    assert stopped.returncode == 128 + signal.SIGTERM
