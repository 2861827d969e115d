"""From the command to the first step, and memory: `-m tests.benchmarks.startup`.

Every round is a new process that runs the program as `python loop.py --epochs=1` does,
with its default flags; the first round, which finds nothing in the disk's cache, is
dropped. A bare `import tensorflow` takes turns with it.
"""

import json
import tempfile
import time

import tqdm

from tests.benchmarks import report

PROGRAM, BARE = "the program", "import tensorflow"


def main():
    """One table."""
    arguments = report.parse(report.parser(__doc__, rounds=5))
    data = {"dataset": "synthetic"}
    if arguments.data_dir:
        with report.data_folder(arguments.data_dir) as (folder, *_):
            data = {"data_dir": folder}
    rounds = {PROGRAM: [], BARE: []}
    for turn in tqdm.trange(1 + arguments.rounds, disable=None, leave=False):
        with tempfile.TemporaryDirectory() as folder:
            program = run({**data, "epochs": 1, "run_dir": f"{folder}/run"})
        bare = run(None)
        if turn > 0:
            rounds[PROGRAM].append(program)
            rounds[BARE].append(bare)
    rows = table(rounds)
    report.print_table([line(row) for row in rows])
    report.write_json(arguments, rows)


def run(settings: dict | None) -> dict:
    """One process: its seconds and MB, by name."""
    given = [] if settings is None else [json.dumps(settings)]
    return json.loads(report.child("stages", str(time.monotonic()), *given))


def table(rounds: dict) -> list[dict]:
    """A row for each stage; memory is what lies above the bare import's."""
    rows = []
    bare = report.summary([one["MB: TensorFlow alone"] for one in rounds[BARE]])
    for name in rounds[PROGRAM][0]:
        values = [one[name] for one in rounds[PROGRAM]]
        unit, _, what = name.rpartition(": ")
        if unit == "MB" and what == "TensorFlow alone":
            continue
        if unit == "MB":
            values = [value - bare["median"] for value in values]
            what = f"peak memory above the import's, {what}"
        rows.append({"what": what, "unit": unit or "s", **report.summary(values)})
    return [*rows, {"what": "memory of a bare import tensorflow", "unit": "MB", **bare}]


def line(row: dict) -> dict:
    """A row for people."""
    digits = 2 if row["unit"] == "s" else 0
    return {
        "what": row["what"],
        "median": f"{row['median']:.{digits}f} {row['unit']}",
        "spread": f"{row['least']:.{digits}f} to {row['most']:.{digits}f}",
    }


if __name__ == "__main__":
    report.run(main)
