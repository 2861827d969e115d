"""One whole run, timed stage by stage; a process of `whole`.

`python -m tests.benchmarks.stages STARTED SYSTEM SETTINGS` prints a JSON object.
"""

import time

BEGAN = time.monotonic()

import json  # noqa: E402 (the clock comes first)
import os  # noqa: E402
import sys  # noqa: E402


def ours(settings: dict, stage) -> None:
    """The program's `run`, as `python loop.py` calls it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.modules["jax"] = None  # TensorFlow imports it where it is; it is not required
    from core.run import process

    with process.importing():
        import tensorflow as tf  # noqa: F401

    stage("import TensorFlow")
    import loop
    from core import settings as settings_of
    from core.evaluation import record

    stage("other imports")

    def ends(stage_name, module, name):
        function = getattr(module, name)

        def timed(*arguments):
            value = function(*arguments)
            stage(stage_name)
            return value

        setattr(module, name, timed)

    compiles = loop.numerics.compiles

    def timed_compiles(*arguments):
        """What `loop.train` asks right before it compiles, and -log p(x) later."""
        if "build" not in stage.found:
            stage("build")
        return compiles(*arguments)

    class Stop(loop.process.NoStop):
        """What `loop.train` sets right before the first step, and after the last."""

        def __setattr__(self, name, value):
            if name == "deferred":
                stage("compile" if value else "train")

    ends("load data", loop.datasets, "load")
    ends("evaluate", record, "evaluation")
    loop.numerics.compiles = timed_compiles
    settings["hidden_sizes"] = tuple(settings["hidden_sizes"])
    loop.run(settings_of.of_values(settings), set(settings), Stop())
    stage("write and draw")


def peer(name: str, settings: dict, epochs: int, stage) -> None:
    """A system of `peers`, for so many epochs."""

    class Turns:
        """What a peer takes its turns from: here they follow each other."""

        done = 0

        def begin(self):
            if not self.done:
                stage("imports, data and build")

        def end(self, **more):
            if not self.done:
                stage("compile, train an epoch")
            self.done += 1
            if self.done == epochs:
                if epochs > 1:
                    stage("train the others")
                raise Done

        def serve(self, work):
            while True:
                self.begin()
                self.end(**work())

    from tests.benchmarks import peers

    class Done(Exception):
        pass

    try:
        getattr(peers, name)(Turns(), **settings)
    except Done:
        pass


class Stages:
    """{stage: seconds}, in the order in which they end."""

    def __init__(self, started: float):
        self.found, self.last = {"Python": BEGAN - started}, BEGAN

    def __call__(self, name: str) -> None:
        """What ends here."""
        now = time.monotonic()
        self.found[name], self.last = now - self.last, now


def main() -> None:
    """Run SYSTEM ("ours", or a function of `peers`) and print its stages."""
    started, system, settings = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    stage, settings = Stages(float(started)), json.loads(settings)
    if system == "ours":
        ours(settings, stage)
    else:
        peer(system, settings, settings.pop("epochs"), stage)
    print(json.dumps(stage.found), file=answers, flush=True)


if __name__ == "__main__":
    main()
