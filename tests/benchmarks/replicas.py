"""Two processes of a core each beside one of two cores: `-m tests.benchmarks.replicas`.

The settings are those of core/recipes/iwae_1layer_k50.flags: fifty samples an image. In
each round both train a few epochs anew, in turn; the first epoch of each is dropped.
Below the table it says what each step exchanges, and, by the measured step, from which
batch on two machines are faster than one.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from core.run import metrics
from tests.benchmarks import report
from tests.benchmarks.report import ROOT

BATCH = 50  # images, as in the recipe
RECIPE = ROOT / "core/recipes/iwae_1layer_k50.flags"
WEIGHTS = 425_284  # of 784-200-200-50-200-200-784
NETWORKS = {"A gigabit": 1e9 / 8, "Ten gigabits": 1e10 / 8}  # bytes a second


def seconds_of_epochs(folder, workers, data):
    """The seconds of each epoch but the first, by one process of two cores or by two
    `workers` of one each."""
    recipe = [f for f in RECIPE.read_text().split("\n") if f.startswith("--")]
    recipe = [f for f in recipe if not f.startswith("--start_from")]
    command = [sys.executable, "loop.py", *recipe, f"--run_dir={folder}", *data]
    command += ["--nofigures", "--importance_samples=0"]
    ports = [socket.socket() for _ in range(workers)]
    for port in ports:
        port.bind(("127.0.0.1", 0))
    hosts = ",".join(f"127.0.0.1:{port.getsockname()[1]}" for port in ports)
    for port in ports:
        port.close()
    if workers > 1:
        command.append(f"--workers={hosts}")
    started = []
    for i in range(workers):
        cores = {i} if workers > 1 else {0, 1}
        started.append(
            subprocess.Popen(
                command + [f"--worker={i}"] * (workers > 1),
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
            )
        )
    if any([process.wait() for process in started]):
        raise ValueError("a process failed")
    return [r["seconds"] for r in metrics.read(Path(folder) / "metrics.jsonl")][1:]


def main():
    """A table of milliseconds a step, and from which batch two machines pay."""
    options = report.parser(__doc__, rounds=4)
    shown = "default: %(default)s"
    options.add_argument("--epochs", type=report.positive, default=3, help=shown)
    options.add_argument(
        "--images", type=report.positive, default=20_000, help=f"an epoch; {shown}"
    )
    asked, found = report.parse(options), {1: [], 2: []}
    with report.data_folder(asked.data_dir) as (data, train, _):
        report.expect_at_most("--images", asked.images, train, "training")
        held_out = len(train.images) - asked.images
        flags = [f"--epochs={asked.epochs}", f"--validation_size={held_out}"]
        flags += ["--dataset=mnist", f"--data_dir={data}"]
        for _ in range(asked.rounds):
            for count in found:
                with tempfile.TemporaryDirectory() as work:
                    seconds = seconds_of_epochs(f"{work}/run", count, flags)
                steps = asked.images // BATCH
                found[count].append(1000 * statistics.median(seconds) / steps)
    rows = [
        {"processes": n, "cores of each": 2 // n, **report.summary(found[n])}
        for n in found
    ]
    speed = report.summary(report.ratios(found[1], found[2]))
    rows[1]["speed"] = speed
    report.print_table([line(row) for row in rows])
    size, step = 4 * (WEIGHTS + 3), rows[0]["median"]
    print(f"Each step exchanges {size:,} bytes, sent and received by each of two.")
    for name, bytes_a_second in NETWORKS.items():
        wire = 1000 * size / bytes_a_second
        batch = wire / (step / BATCH / 2)  # whose half saves as much as it takes
        print(
            f"{name}: {wire:.1f} ms; two machines pay from {batch:.0f} images a batch"
        )
    report.write_json(asked, rows)


def line(row: dict) -> dict:
    """A row for people."""
    speed = report.significant(row["speed"]["median"]) if "speed" in row else "1"
    return {
        **{name: row[name] for name in ("processes", "cores of each")},
        "ms a step": report.significant(row["median"]),
        "spread": report.span(row),
        "speed": speed,
    }


if __name__ == "__main__":
    report.run(main)
