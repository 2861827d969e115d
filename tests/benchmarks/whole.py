"""Whole commands, from Enter to prompt: `-m tests.benchmarks.whole`.

Each command is a new process: import, data, compilation and training; ours also
evaluates, draws and writes. They take turns; the first round, which finds nothing in
the disk's cache, is dropped.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import tqdm

from tests.benchmarks import report
from tests.benchmarks.compare import OURS

SYSTEMS = {  # name: function of `peers`
    OURS: "ours",
    "Keras, fit": "keras_fit",
    "PyTorch, loop": "pytorch",
    "JAX, scan": "jax_scan",
}
OTHERS_DO = {  # what a flag must say for the same work
    **{"binarization": "none", "validation_size": 0, "ema_decay": 0},
    **{"learning_rate": 1e-3, "learning_rate_schedule": "constant"},
}


def main():
    """A table of wall clock and memory, and one of our stages."""
    arguments = parse()
    rows = []
    with report.data_folder(arguments.data_dir) as (folder, *_):
        work = report.network(arguments) | {"data_dir": folder}
        for epochs in arguments.epochs:
            rounds, failures = take_turns(arguments, work | {"epochs": epochs})
            for name, reason in failures.items():
                print(f"{name}: {reason}", file=sys.stderr)
            rows += table(epochs, rounds)
    report.print_table([line(row) for row in rows])
    for row in rows:
        print(f"\n{row['system']}, epochs {row['epochs']}, seconds by stage (medians):")
        print(", ".join(f"{k} {v['median']:.2f}" for k, v in row["stages"].items()))
    report.write_json(arguments, rows)


def parse():
    """The command line."""
    options = report.parser(__doc__, rounds=3)
    report.add_network(options)
    shown = "default: %(default)s"
    options.add_argument(
        "--epochs", type=report.sizes, default=(1, 5), metavar="N,N", help=shown
    )
    options.add_argument(
        "--systems", nargs="+", choices=[*SYSTEMS.values()], default=[*SYSTEMS.values()]
    )
    return report.parse(options)


def take_turns(arguments, settings: dict):
    """({system: its rounds}, {system: why it has none})."""
    systems = {k: v for k, v in SYSTEMS.items() if v in arguments.systems}
    rounds, failures = {name: [] for name in systems}, {}
    for turn in tqdm.trange(1 + arguments.rounds, disable=None, leave=False):
        for name, system in systems.items():
            if name in failures:
                continue
            try:
                found = measure(system, settings)
            except subprocess.CalledProcessError as error:
                failures[name] = f"exit code {error.returncode}"
                del rounds[name]
                continue
            if turn > 0:
                rounds[name].append(found)
    return rounds, failures


def measure(system: str, settings: dict) -> dict:
    """One command: seconds from Enter to prompt, peak memory in MB, its stages. Ours is
    run twice: as a user does, and to know its stages."""
    with tempfile.TemporaryDirectory() as folder:
        if system != "ours":
            return command(["-m", "tests.benchmarks.stages"], system, settings)
        ours = settings | OTHERS_DO | {"run_dir": f"{folder}/run"}
        flags = [f"--{name}={text(value)}" for name, value in ours.items()]
        found = command(["loop.py", *flags])
        ours["run_dir"] = f"{folder}/again"
        staged = command(["-m", "tests.benchmarks.stages"], "ours", ours)
        return found | {"stages": staged["stages"]}


def text(value) -> str:
    """A value as on the command line."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def command(arguments: list[str], system="", settings=None) -> dict:
    """Run Python with these arguments; for `stages`, STARTED, system and settings."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        if system:
            arguments = [*arguments, str(started), system, json.dumps(settings)]
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            stderr=subprocess.DEVNULL,
            cwd=report.ROOT,
            env=environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, arguments)
        output.seek(0)
        stages = json.loads(output.read()) if system else {}
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"seconds": seconds, "MB": usage.ru_maxrss / unit, "stages": stages}


def table(epochs: int, rounds: dict) -> list[dict]:
    """A row for each system."""
    rows = []
    for name, found in rounds.items():
        seconds = [one["seconds"] for one in found]
        row = {"system": name, "epochs": epochs, "seconds": report.summary(seconds)}
        row["MB"] = report.summary([one["MB"] for one in found])
        if OURS in rounds:
            ours = [one["seconds"] for one in rounds[OURS]]
            row["ours / its"] = report.summary(report.ratios(ours, seconds))
        row["stages"] = {
            stage: report.summary([one["stages"][stage] for one in found])
            for stage in found[0]["stages"]
        }
        rows.append(row)
    return rows


def line(row: dict) -> dict:
    """A row for people."""
    cells = {"system": row["system"], "epochs": row["epochs"]}
    cells |= {"seconds": f"{row['seconds']['median']:.1f}"}
    cells |= {"spread": report.span(row["seconds"]), "MB": f"{row['MB']['median']:.0f}"}
    if "ours / its" in row:
        cells["ours / its"] = f"{row['ours / its']['median']:.2f}"
    return cells


if __name__ == "__main__":
    report.run(main)
