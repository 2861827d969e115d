"""Systems that do the same work, and the floor under them, in one table."""

import statistics
from collections import Counter

from tests.benchmarks import floor, report, workers

OURS, FLOOR = "this project", "matrix products alone"


def compare(arguments, systems, missing, products: Counter, amount: float, unit: str):
    """Let all take turns, print the table, and write --json.

    `systems` is what `workers.interleave` takes, `missing` tells why others are left
    out, `products` are the matrix products of one round, and `amount` says how many of
    a `unit` a round does. Every system answers with its seconds and with one number
    more, by which one sees that they did the same.
    """
    measuring = {FLOOR: ("floor", "measure", {"products": list(products)})}
    answers, failures = workers.interleave(systems | measuring, arguments.rounds)
    found, gflop = None, floor.flops(products) / 1e9
    if FLOOR in answers:
        found = floor.fastest(products, answers.pop(FLOOR))
    rows = measured(answers, amount)
    if found:
        add_floor(rows, floor.seconds(found), gflop)
    rows += [{"system": name, "why": why} for name, why in (missing | failures).items()]
    report.print_table([line(row, unit) for row in rows])
    machine = report.machine()
    print(f"On {machine['card'] or machine['processor']}")
    report.write_json(arguments, rows, unit=unit, gflop=gflop, products=found)


def measured(answers: dict, amount: float) -> list[dict]:
    """A row of numbers for each system."""
    rows = []
    ours = workers.column(answers.get(OURS, []), "seconds")
    for name, given in answers.items():
        seconds = workers.column(given, "seconds")
        row = {
            "system": name,
            "seconds": report.summary(seconds),
            "rate": amount / statistics.median(seconds),
            "times_ours": report.ratio(seconds, ours) if ours else None,
        }
        rows.append(row | {k: v for k, v in given[-1].items() if k != "seconds"})
    return rows


def add_floor(rows: list[dict], seconds: float, gflop: float) -> None:
    """The floor's row, and every other row's share of it."""
    for row in rows:
        row["share_of_floor"] = seconds / row["seconds"]["median"]
    more = {"share_of_floor": 1.0, "gflop": gflop, "gflop_a_second": gflop / seconds}
    rows.append({"system": FLOOR, "seconds": {"median": seconds}, **more})


def line(row: dict, unit: str) -> dict:
    """A row for people."""
    if "why" in row:
        return {"system": f"{row['system']}: {row['why'][:80]}"}
    texts = {
        "system": row["system"],
        "seconds": report.significant(row["seconds"]["median"]),
        "spread": report.span(row["seconds"]) if "values" in row["seconds"] else "",
    }
    if "rate" in row:
        texts[f"{unit} a second"] = f"{row['rate']:,.0f}"
    if row.get("times_ours"):
        texts["time / ours"] = f"{row['times_ours']:.2f}"
    if "share_of_floor" in row:
        texts["share of floor"] = f"{row['share_of_floor']:.0%}"
    for name in ("loss", "log p(x)"):
        if name in row:
            texts[name] = f"{row[name]:.2f}"
    if "gflop" in row:
        texts["GFLOP"] = f"{row['gflop']:,.0f}"
        texts["GFLOP/s"] = f"{row['gflop_a_second']:,.0f}"
    return texts
