"""Faults too long for the test suite: `python -m tests.drills [NAME ...] [--count=N]`.

kill: SIGKILL at random instants of the real program, resumed every time.
stop: SIGINT, SIGTERM and SIGHUP, once and twice, in training, evaluation and figures.
damage: every file of a run folder cut at every tenth, zeroed, flipped and missing.
disk: a file-size limit, and (as root) a full disk and a read-only one.
numbers: a learning rate of 10, and images that are all black or all white.
workers: two processes, of which one is killed, stopped, late, or unlike the other.

Each prints what it did and how it ended, and exits with 1 if anything was lost.
"""

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.run.process import importing

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with importing():
    import tensorflow as tf

from core.data import synthetic  # noqa: E402
from core.data.digits import Digits  # noqa: E402
from core.run import checkpoint  # noqa: E402
from tests.conftest import (  # noqa: E402
    ROOT,
    as_arguments,
    program,
    run,
    small_settings,
    write_idx_folder,
)
from tests.runs import assert_same_run, weights_and_moments  # noqa: E402

EPOCHS = 25
FAILURES = []


def expect(good, what):
    if not good:
        FAILURES.append(what)
        print(f"FAILED: {what}", flush=True)


def settings_for(folder, data, **changes):
    return small_settings(data, folder) | {"epochs": EPOCHS} | changes


def silently(settings):
    """`run` without its output."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        run(settings)


def one_line(errors):
    return errors.startswith("error: ") and errors.count("\n") == 1


def same(one, other, what):
    try:
        assert_same_run(one, other)
        return True
    except (AssertionError, UserError) as error:
        expect(False, f"{what}: {str(error).strip()[:300]}")
        return False


def started(settings):
    """A program that has loaded its data, and says so."""
    process = program(*as_arguments(settings))
    read_until(process, "Data: ")
    return process


def read_until(process, beginning):
    """Read lines of a program, up to the one that begins so, or to its end."""
    for line in process.stdout:
        if line.startswith(beginning):
            break


def kill(work, data, count):
    """Two runs at a time, one under XLA, are killed over and over until they end."""
    for jit in (False, True):
        silently(settings_for(work / f"straight-{jit}", data, jit=jit, figures=True))
    lock, kills, ended, found = threading.Lock(), [], Counter(), Counter()

    def worker(jit):
        chance, number = random.Random(jit), 0
        while len(kills) < count:
            number += 1
            folder = work / f"killed-{jit}-{number}"
            keep = 1 + number % 3
            settings = settings_for(folder, data, figures=True, jit=jit)
            settings["keep_checkpoints"] = keep
            while True:
                process = program(*as_arguments(settings))
                if len(kills) < count:
                    if chance.random() < 0.85:
                        read_until(process, "Data: ")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(chance.uniform(0, 6.0))
                    done = process.poll() is not None
                    process.kill()
                else:
                    done = True
                _, errors = process.communicate()
                if done:
                    expect(process.returncode == 0 and not errors, f"resume: {errors}")
                    break
                with lock:
                    kills.append(1)
                    steps = checkpoint.steps_on_disk(folder)
                    where = "before any" if not steps else "after some"
                    found[f"killed {where} checkpoint"] += 1
                    for pattern in ("*.partial", "ckpt-*_temp"):
                        found[f"left {pattern}"] += bool(list(folder.rglob(pattern)))
            with lock:
                ended[
                    "the same bits"
                    if same(folder, work / f"straight-{jit}", folder)
                    else "OTHER"
                ] += 1
            shutil.rmtree(folder)

    threads = [threading.Thread(target=worker, args=[jit]) for jit in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"kill: {len(kills)} instants; runs ended in: {dict(ended)}; {dict(found)}")


def stop(work, data, count):
    straight = work / "straight"
    silently(settings_for(straight, data, figures=True))
    ends = Counter()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        name = number.name
        for times in (1, 2):
            folder = work / f"{name}-{times}"
            settings = settings_for(folder, data, figures=True)
            for delay in (0, 0.3, 0.8, 1.5, 2.0, 2.5, 3.0):
                process = started(settings)
                time.sleep(delay)
                for _ in range(times):
                    process.send_signal(number)
                    time.sleep(0.01)
                _, errors = process.communicate(timeout=60)
                expect(errors == "", f"{name}: {errors}")
                good = {0, 128 + number} | ({-number} if times == 2 else set())
                expect(process.returncode in good, f"{name}: {process.returncode}")
                ends[f"{name} x{times}: exit {process.returncode}"] += 1
            silently(settings)
            same(folder, straight, f"{name} x{times}")
    print(f"stop: {dict(ends)}; every run ended in the same bits")


def damages(content):
    """(name, what to write; None to delete) for a file's content."""
    for tenth in range(10):
        yield f"cut at {tenth}/10", content[: len(content) * tenth // 10]
    yield "zeroed", bytes(len(content))
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 4]) if content else b"x"
    yield "flipped", content[:middle] + flipped + content[middle + 1 :]
    yield "missing", None


def damage(work, data, count):
    """Three epochs, damage, then a fourth; against four that nothing happened to."""
    whole, straight = work / "whole", work / "straight"
    silently(settings_for(whole, data, epochs=3, figures=True))
    silently(settings_for(straight, data, epochs=4))
    table = {}
    for path in sorted(p for p in whole.rglob("*") if p.is_file()):
        name = str(path.relative_to(whole))
        name = "events.out.tfevents.*" if name.startswith("events") else name
        for kind, content in damages(path.read_bytes()):
            folder = work / "damaged"
            shutil.copytree(whole, folder)
            victim = folder / path.relative_to(whole)
            victim.unlink() if content is None else victim.write_bytes(content)
            try:
                silently(settings_for(folder, data, epochs=4))
                one = checkpoint_arrays(folder)
                end = "went on" if one == checkpoint_arrays(straight) else "WRONG"
                expect(end != "WRONG", f"{name} {kind}: trained on from wrong numbers")
                if name != "metrics.jsonl":
                    same(folder, straight, f"{name} {kind}")
            except UserError as error:
                end = "refused"
                allowed = name in ("config.json", "metrics.jsonl")
                expect(allowed and "\n" not in str(error), f"{name} {kind}: {error}")
            table.setdefault(name, Counter())[end] += 1
            shutil.rmtree(folder)
    for name, ends in table.items():
        print(f"damage: {name}: {dict(ends)}")
    total = sum(map(Counter.total, table.values()))
    print(f"damage: {total} cases on {len(table)} files")


def checkpoint_arrays(folder):
    return {k: v.tobytes() for k, v in weights_and_moments(folder).items()}


def disk(work, data, count):
    straight = work / "straight"
    silently(settings_for(straight, data, hidden_sizes=(64,)))
    settings = settings_for(work / "limited", data, hidden_sizes=(64,))
    for size in (100, 2_000, 50_000, 400_000):
        limit = size

        def limited(limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        process = program(*as_arguments(settings), preexec_fn=limited)
        _, errors = process.communicate(timeout=60)
        expect(process.returncode == 1 and one_line(errors), f"limit: {errors}")
        print(f"disk: at most {size} bytes a file: {errors.strip()[:150]}")
    silently(settings)
    same(work / "limited", straight, "after the file-size limit")
    mount = work / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", mount])
    if made.returncode:
        print("disk: no tmpfs could be mounted (not root?): full disk not tried")
        return
    try:
        settings = settings_for(mount / "run", data, hidden_sizes=(64,), epochs=3)
        silently(settings)
        (mount / "filler").write_bytes(bytes(2**20))
        with contextlib.suppress(OSError), open(mount / "filler", "ab") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        settings["epochs"] = EPOCHS
        process = program(*as_arguments(settings))
        _, errors = process.communicate(timeout=60)
        expect(process.returncode == 1 and one_line(errors), f"full: {errors}")
        print(f"disk: full: {errors.strip()[:150]}")
        (mount / "filler").unlink()
        silently(settings)
        same(mount / "run", straight, "after the full disk")
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        for run_dir in ("run", "other"):
            changes = {"run_dir": str(mount / run_dir), "epochs": EPOCHS + 1}
            process = program(*as_arguments(settings | changes))
            _, errors = process.communicate(timeout=60)
            expect(process.returncode == 1 and one_line(errors), f"ro: {errors}")
            print(f"disk: read-only: {errors.strip()[:150]}")
    finally:
        subprocess.run(["umount", mount], check=True)


def numbers(work, data, count):
    blank = Digits(np.zeros([330, 28, 28], np.uint8), np.arange(330) % 10)
    for name, images in (("black", blank.images), ("white", blank.images + 255)):
        digits = Digits(images, blank.labels)
        folder = write_idx_folder(work / name, digits, digits)
        settings = settings_for(work / f"{name}-run", folder, epochs=3, figures=True)
        process = program(*as_arguments(settings))
        output, errors = process.communicate(timeout=60)
        expect(process.returncode == 0 and errors == "", f"{name}: {errors}")
        (bound,) = [line for line in output.splitlines() if line.startswith("Test")]
        print(f"numbers: {name} images: {bound}")
    settings = settings_for(work / "fast", data, learning_rate=10, epochs=20)
    process = program(*as_arguments(settings))
    _, errors = process.communicate(timeout=60)
    expect(process.returncode == 0 or one_line(errors), f"learning rate: {errors}")
    print(f"numbers: learning rate 10: {errors.strip() or 'trained through'}")
    if errors:
        silently(settings | {"learning_rate": 1e-4})
        print("numbers: went on with a lower learning rate")


def workers(work, data, count):
    """Each fault ends every process with one line within 90 seconds; the checkpoint is
    whole, and the same commands go on."""
    settings = settings_for(work / "run", data, epochs=100_000)
    cases = [(n, v) for n in (signal.SIGKILL, signal.SIGTERM) for v in (0, 1)]
    for number, victim in [*cases, (signal.SIGSTOP, 0), (signal.SIGSTOP, 1)]:
        pair = start_workers(settings)
        read_until(pair[0], "epoch ")
        time.sleep(1)
        pair[victim].send_signal(number)
        name = f"{number.name} of {'a worker' if victim else 'the chief'}"
        end_of(name, [pair[1 - victim]] if number != signal.SIGTERM else pair)
        if number != signal.SIGTERM:
            pair[victim].kill()
            pair[victim].communicate()
        steps, notes = checkpoint.newest(work / "run")
        expect(steps and not notes, f"{name}: {notes}")
    other = write_idx_folder(work / "other", *synthetic.draw(2, (330, 60)))
    changes = {
        "other flags": {"beta": 3.0},
        "another seed": {"seed": 7},
        "other data": {"data_dir": str(other)},
        "the same index": {"worker": 0},
    }
    for name, change in changes.items():
        end_of(name, start_workers(settings, **change))
    version = work / "version"
    shutil.copytree(ROOT / "core", version / "core")
    for file in ("loop.py", "flags.py"):
        shutil.copy(ROOT / file, version)
    with open(version / "core" / "errors.py", "a") as file:
        file.write("# another version\n")
    end_of("another version", start_workers(settings, at=version))
    lonely, late = start_workers(settings)
    late.kill()
    late.communicate()
    end_of("a worker that never comes", [lonely])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        end_of("a port in use", start_workers(settings, port=port))
    epochs = checkpoint.newest(work / "run")[0] // 15 + 1
    for process in start_workers(settings | {"epochs": epochs}):
        _, errors = process.communicate(timeout=300)
        expect(process.returncode == 0, f"going on: {errors}")
    print("workers: the same commands went on")


def start_workers(settings, at=ROOT, port=None, **changes):
    """Two workers; the second has other flags, another place or another's port."""
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (one, two)]
    ports[1] = port or ports[1]
    hosts = ",".join(f"127.0.0.1:{each}" for each in ports)
    flags = settings | {"workers": hosts}
    chief = program(*as_arguments(flags | {"worker": 0}))
    flags |= {"worker": 1} | changes
    script, env = (str(at / "loop.py"),), {"PYTHONPATH": str(at)}
    return chief, program(*as_arguments(flags), script=script, env=env)


def end_of(name, processes):
    """What the processes said at their end; each has 90 seconds for one line."""
    begun = time.monotonic()
    for process in processes:
        try:
            said, errors = process.communicate(timeout=max(1, 90 - since(begun)))
        except subprocess.TimeoutExpired:
            expect(False, f"{name}: {process.args[-1]} did not end")
            process.kill()
            said, errors = process.communicate()
        line = errors or said.strip().split("\n")[-1]
        stopped = "SIGTERM" in name and not errors
        expect(stopped or one_line(errors), f"{name}: {errors}")
        print(
            f"workers: {name}, {since(begun):.0f} s: {line.strip()[:200]}", flush=True
        )


def since(begun):
    return time.monotonic() - begun


DRILLS = {f.__name__: f for f in (kill, stop, damage, disk, numbers, workers)}


def main():
    tf.get_logger().setLevel("ERROR")  # every run in this process traces anew
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *DRILLS], default=[])
    parser.add_argument("--count", type=int, default=100, help="instants to kill at")
    arguments = parser.parse_args()
    for name in arguments.names or DRILLS:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as work:
            data = write_idx_folder(Path(work) / "data", *synthetic.draw(1, (330, 60)))
            DRILLS[name](Path(work), data, arguments.count)
        print(f"{name}: done in {time.monotonic() - start:.0f} s", flush=True)
    sys.exit(1 if FAILURES else 0)


if __name__ == "__main__":
    main()
