"""Two processes of a core each beside one of two cores, by 50 samples an image:
`python -m tests.benchmarks.replicas`.

The settings are those of core/recipes/iwae_1layer_k50.flags, by default on the built-in
digits. In each round both train a few epochs anew, in turn; the first epoch of each is
dropped. It prints what each step exchanges, and, by the measured step, from which batch
on two machines are faster than one.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from core.run import metrics
from tests.benchmarks.report import ROOT

RECIPE = ROOT / "core/recipes/iwae_1layer_k50.flags"
WEIGHTS = 425_284  # of 784-200-200-50-200-200-784
NETWORKS = {"a gigabit": 1e9 / 8, "ten gigabit": 1e10 / 8}  # bytes a second


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
        sys.exit("a process failed")
    return [r["seconds"] for r in metrics.read(Path(folder) / "metrics.jsonl")][1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000, help="in an epoch")
    parser.add_argument("--data_dir", default="")
    asked = parser.parse_args()
    there, data = 25_000, [f"--epochs={asked.epochs}", "--dataset=synthetic"]
    if asked.data_dir:
        there, data[1:] = 60_000, [f"--data_dir={asked.data_dir}", "--dataset=mnist"]
    data.append(f"--validation_size={there - asked.images}")
    found, steps = {1: [], 2: []}, asked.images // 50
    with tempfile.TemporaryDirectory() as work:
        for number in range(asked.rounds):
            for count in found:
                folder = f"{work}/{number}-{count}"
                found[count] += seconds_of_epochs(folder, count, data)
    one, two = (1000 * statistics.median(found[n]) / steps for n in (1, 2))
    size = 4 * (WEIGHTS + 3)
    print(f"one process of two cores: {one:.2f} ms a step")
    print(f"two processes of a core each: {two:.2f} ms a step, {one / two:.2f} of it")
    print(f"each step exchanges {size:,} bytes, sent and received by each of two")
    for name, speed in NETWORKS.items():
        wire = 1000 * size / speed
        batch = wire / (one / 50 / 2)  # images whose halves save as much as it takes
        print(f"{name}: {wire:.1f} ms a step; two machines pay from {batch:.0f} images")


if __name__ == "__main__":
    main()
