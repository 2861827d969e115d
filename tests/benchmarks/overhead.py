"""What is not training in the time of training: `-m tests.benchmarks.overhead`.

The per cent that dynamic binarization adds to an epoch, and the per cent of an epoch of
the default run that evaluation, checkpoint, metrics and progress take. All take turns,
each in a process of its own; the epoch that compiles is dropped.
"""

import os
import tempfile
import threading
import time

from tests.benchmarks import report, workers

GREY, DYNAMIC, DEFAULT = "grey pixels", "dynamic binarization", "default run"
PARTS = ("evaluation", "checkpoint", "metrics and progress")


def main():
    """One table."""
    options = report.parser(__doc__, rounds=7)
    report.add_network(options)
    arguments = report.parse(options)
    with report.data_folder(arguments.data_dir) as (folder, digits, _):
        report.expect_at_most("--batch_size", arguments.batch_size, digits, "training")
        work = report.network(arguments) | {"data_dir": folder}
        systems = {
            GREY: ("peers", "this_project", work | {"binarization": "none"}),
            DYNAMIC: ("peers", "this_project", work | {"binarization": "dynamic"}),
            DEFAULT: ("overhead", "default_epochs", {"data_dir": folder}),
        }
        answers, failures = workers.interleave(systems, arguments.rounds)
    if failures:
        raise ValueError("; ".join(f"{k} failed: {v}" for k, v in failures.items()))
    rows = table(answers)
    report.print_table([line(row) for row in rows])
    report.write_json(arguments, rows)


def default_epochs(turns, data_dir):
    """A worker: the program itself with its default flags and its progress bar. A turn
    lasts from before an epoch's first step to before the next epoch's, and tells what
    was inside of the blocks of steps, and what in `PARTS`."""
    pretend_terminal()
    import loop
    from core import settings as settings_of

    spent = dict.fromkeys(("inside", "progress", *PARTS[:2]), 0.0)
    add_epoch, save = loop.RunFolder.add_epoch, loop.RunFolder.save
    saved = 0

    def clocked(name, function):
        def call(*arguments):
            start = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                spent[name] += time.perf_counter() - start

        return call

    def telling_add_epoch(folder, record):
        spent["inside"] = record["seconds"] - spent["progress"]
        add_epoch(folder, record)

    def taking_turns(folder, *arguments):
        """The first checkpoint comes before training, and the others end an epoch."""
        nonlocal saved
        clocked("checkpoint", save)(folder, *arguments)
        if saved:
            turns.end(**spent)
        saved += 1
        turns.begin()
        spent.update(dict.fromkeys(spent, 0.0))

    loop.RunFolder.add_epoch, loop.RunFolder.save = telling_add_epoch, taking_turns
    loop.Screen.show = clocked("progress", loop.Screen.show)
    loop.records.validation = clocked("evaluation", loop.records.validation)
    check = loop.failure.expect_finite_weights
    loop.failure.expect_finite_weights = clocked("checkpoint", check)
    with tempfile.TemporaryDirectory() as folder:
        values = dict(data_dir=data_dir, run_dir=f"{folder}/run", epochs=10**4)
        loop.run(settings_of.of_values(values), set(values))


def pretend_terminal() -> None:
    """Make standard error a terminal, so that the progress bar is really drawn; what is
    written to it goes where it went before."""
    terminal, inside = os.openpty()
    before = os.dup(2)
    os.dup2(inside, 2)
    os.dup2(inside, 1)

    def forward():
        while text := os.read(terminal, 2**16):
            os.write(before, text)

    threading.Thread(target=forward, daemon=True).start()


def table(answers: dict) -> list[dict]:
    """A row for each thing measured, with its per cent of what it belongs to."""
    grey, dynamic, whole = (
        workers.column(answers[name], "seconds") for name in (GREY, DYNAMIC, DEFAULT)
    )
    parts = {
        name: workers.column(answers[DEFAULT], name) for name in ("inside", *PARTS[:2])
    }
    outside = [a - b for a, b in zip(whole, parts["inside"], strict=True)]
    rest = [
        a - b - c for a, b, c in zip(outside, *map(parts.get, PARTS[:2]), strict=True)
    ]
    added = [100 * (ratio - 1) for ratio in report.ratios(dynamic, grey)]
    rows = [
        {"what": f"epoch, {GREY}", **report.summary(grey)},
        {"what": f"epoch, {DYNAMIC}", **report.summary(dynamic)}
        | {"added": report.summary(added)},
        {"what": f"epoch, {DEFAULT}", **report.summary(whole)},
    ]
    outsides = {"outside the blocks": outside, **{p: parts[p] for p in PARTS[:2]}}
    for name, seconds in (outsides | {PARTS[2]: rest}).items():
        share = [100 * ratio for ratio in report.ratios(seconds, whole)]
        rows.append(
            {"what": f"- {name}", **report.summary(seconds)}
            | {"share": report.summary(share)}
        )
    return rows


def line(row: dict) -> dict:
    """A row for people."""
    texts = {
        "what": row["what"],
        "seconds": report.significant(row["median"]),
        "spread": report.span(row),
        "per cent": "",
    }
    if "added" in row:
        texts["per cent"] = f"{row['added']['median']:+.1f} %"
    if "share" in row:
        texts["per cent"] = f"{row['share']['median']:.2f} % of the epoch"
    for name in ("added", "share"):
        if name in row:
            texts["its spread"] = report.span(row[name])
    return texts


if __name__ == "__main__":
    report.run(main)
