"""Processes that take turns, so that what is compared never runs at the same time.

The parent starts a `Worker` for each system, asks them in turn (A B C A B C ...) for
one round each, and reads what it took. In the process, the system's function is called
with a `Turns`, which waits for the parent, holds the clock, and answers:
`python -m tests.benchmarks.workers MODULE FUNCTION SETTINGS`.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time

import tqdm

from tests.benchmarks.report import ROOT

PAUSE = 0.3  # seconds before each round: threads of the one before fall asleep


# --- In the parent --------------------------------------------------------------------


class Failed(Exception):
    """A worker ended before its time; the message says why."""


class Worker:
    """A process that does one round whenever it is told to, and else sleeps.

    When it is made it has done its first round, in which everything is compiled.
    """

    def __init__(self, module: str, function: str, **settings):
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        name = f"tests.benchmarks.{module}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, name, function, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
        )
        try:
            self.first = self._answer()
        except BaseException:
            self.close()
            raise

    def round(self) -> dict:
        """What the next round gave: its seconds, and what else the system tells."""
        time.sleep(PAUSE)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().split("\n")
            last = [text.strip() for text in said if text.strip()][-1:]
            raise Failed(" ".join(last) or f"exit code {self.process.returncode}")
        return json.loads(line)

    def close(self) -> None:
        """End the process, gently if it listens."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def interleave(systems: dict, rounds: int) -> tuple[dict, dict]:
    """({name: the answers of all rounds}, {name: why it has none}).

    `systems` gives for each name the arguments of its `Worker`: (module, function,
    settings).
    """
    workers, answers, failures = {}, {name: [] for name in systems}, {}
    total = len(systems) * (1 + rounds)
    with contextlib.ExitStack() as held:
        bar = held.enter_context(tqdm.tqdm(total=total, disable=None, leave=False))
        for turn in range(1 + rounds):
            for name, (module, function, settings) in systems.items():
                bar.set_description(name)
                try:
                    if turn == 0:
                        worker = workers[name] = Worker(module, function, **settings)
                        held.callback(worker.close)
                    elif name not in failures:
                        answers[name].append(workers[name].round())
                except Failed as error:
                    failures[name] = str(error)
                    del answers[name]
                bar.update()
    return answers, failures


def column(answers: list[dict], key: str) -> list:
    """One value of every round."""
    return [answer[key] for answer in answers]


# --- In the process -------------------------------------------------------------------


class Turns:
    """The other end: `begin` waits for the parent, `end` answers with the seconds.

    The first round, which compiles, is not waited for. What libraries print to standard
    output goes to standard error.
    """

    def __init__(self):
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.started = False

    def begin(self) -> None:
        """Wait for the parent (unless it is the first round) and start the clock."""
        if self.started and not sys.stdin.readline():
            sys.exit()
        self.started = True
        self.start = time.perf_counter()

    def end(self, **more) -> None:
        """Stop the clock and tell the parent."""
        seconds = time.perf_counter() - self.start
        print(json.dumps({"seconds": seconds, **more}), file=self.answers, flush=True)

    def serve(self, work) -> None:
        """Rounds of work() -> a dict for the parent, until it hangs up."""
        while True:
            self.begin()
            self.end(**work())


def main() -> None:
    """Call FUNCTION of MODULE with a `Turns` and the settings."""
    module, function, settings = sys.argv[1:]
    turns = Turns()
    getattr(importlib.import_module(module), function)(turns, **json.loads(settings))


if __name__ == "__main__":
    main()
