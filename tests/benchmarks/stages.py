"""One run of the program, timed stage by stage; a process of `startup`.

`python -m tests.benchmarks.stages STARTED FLAGS` prints a JSON object; without FLAGS it
only imports TensorFlow.
"""

import time

BEGAN = time.monotonic()

import contextlib  # noqa: E402 (the clock comes first)
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402


def peak_memory() -> float:
    """The most resident memory that this process had so far, in MB."""
    with contextlib.suppress(OSError):  # Linux; getrusage would count the parent's
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(started: float, settings: dict | None) -> dict:
    """{stage: seconds} and memory, in the order in which they happen."""
    found, last = {"Python": BEGAN - started}, BEGAN

    def stage(name):
        """What ends here."""
        nonlocal last
        now = time.monotonic()
        found[name], last = now - last, now

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.modules["jax"] = None  # TensorFlow imports it where it is; it is not required
    import tensorflow as tf  # noqa: F401

    stage("import TensorFlow")
    found["MB: TensorFlow alone"] = peak_memory()
    if settings is None:
        return found
    import loop
    from core import settings as settings_of

    stage("other imports")
    load, compiles, train = loop.datasets.load, loop.numerics.compiles, loop.train

    def timed_load(*arguments):
        data = load(*arguments)
        stage("load data")
        return data

    def timed_compiles(*arguments):
        """What `loop.train` asks right before it compiles."""
        stage("build")
        return compiles(*arguments)

    class Stop(loop.process.NoStop):
        """What `loop.train` sets right before the first step, and after the last."""

        def __setattr__(self, name, value):
            if name == "deferred" and value:
                stage("compile")
                found["to the first step"] = last - started

    def watched_train(*arguments):
        train(*arguments)
        found["MB: trained an epoch"] = peak_memory()

    loop.datasets.load, loop.numerics.compiles = timed_load, timed_compiles
    loop.train = watched_train
    loop.run(settings_of.of_values(settings), set(settings), Stop())
    found["MB: evaluated and drew"] = peak_memory()
    return found


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    given = json.loads(sys.argv[2]) if len(sys.argv) > 2 else None
    print(json.dumps(main(float(sys.argv[1]), given)), file=answers)
