"""How the cost of training grows: `-m tests.benchmarks.scaling [--only AXIS ...]`.

One setting at a time is varied, and the rest stay. The values of an axis take turns, an
epoch or more each; the epoch that compiles is dropped. A cost that is flat or falls
along its axis is as good as linear, or better.
"""

import time

import tqdm

from core.run import process
from tests.benchmarks import floor, report

IMAGES = 20_480  # an epoch, where the axis is another: five batches of 4096
FEWER = 2_560  # on the axis of samples
SHORTEST = 0.3  # seconds of one turn

AXES = {
    "batch_size": (20, 50, 128, 256, 512, 1024, 2048, 4096),
    "hidden_width": (200, 400, 800, 1200, 2000),
    "depth": (1, 2, 4, 8),
    "latent_dim": (2, 10, 20, 50, 100, 200, 500),
    "num_samples": (1, 2, 5, 10, 20, 50),
    "images": (1_000, 10_000, 100_000, 1_000_000),
}
UNITS = {
    "batch_size": "image",
    "hidden_width": "GFLOP",
    "depth": "GFLOP",
    "latent_dim": "GFLOP",
    "num_samples": "sample of z",
    "images": "image",
}


def main():
    """One table of all axes."""
    arguments = parse()
    with report.data_folder(arguments.data_dir) as (folder, *_):
        rows = []
        for axis in arguments.only:
            rows += measure(axis, arguments, folder)
    report.print_table([line(row) for row in rows])
    report.write_json(arguments, rows)


def parse():
    """The command line."""
    options = report.parser(__doc__, rounds=3)
    report.add_network(options)
    report.add_binarization(options, "dynamic", "default: %(default)s")
    options.add_argument(
        "--only",
        nargs="+",
        choices=list(AXES),
        default=list(AXES),
        metavar="AXIS",
        help=f"of {', '.join(AXES)}; default: all",
    )
    options.add_argument(
        "--most",
        type=report.positive,
        default=10**6,
        metavar="N",
        help="images on that axis; a million take 5 GB; default: %(default)s",
    )
    arguments = report.parse(options)
    least = min(AXES["images"])
    if arguments.batch_size > least or arguments.most < least:
        options.error(f"expected a --batch_size of at most {least:,}, and --most above")
    return arguments


def settings_at(axis: str, value: int, arguments) -> dict:
    """The settings of a run: those of the command line but for one."""
    settings = report.network(arguments) | {"images": IMAGES}
    width = arguments.hidden_sizes[0]
    changed = {
        "hidden_width": {"hidden_sizes": [value] * len(arguments.hidden_sizes)},
        "depth": {"hidden_sizes": [width] * value},
        "num_samples": {"num_samples": value, "images": FEWER},
    }
    return settings | changed.get(axis, {axis: value})


def measure(axis: str, arguments, folder: str) -> list[dict]:
    """A row of numbers for each value of an axis."""
    with process.importing():
        import tensorflow as tf

    from tests.benchmarks.peers import epochs, prepare

    tf.get_logger().setLevel("ERROR")  # many functions are traced, not one often
    values = [n for n in AXES[axis] if axis != "images" or n <= arguments.most]
    work = {value: settings_at(axis, value, arguments) for value in values}
    losses, seconds = {}, {value: [] for value in values}
    bar = tqdm.tqdm(
        total=len(values) * (1 + arguments.rounds),
        desc=axis,
        disable=None,
        leave=False,
    )
    for turn in range(1 + arguments.rounds):
        for value in values:
            if turn == 0:
                pixels = {"data_dir": folder, "binarization": arguments.binarization}
                losses[value] = epochs(*prepare(**pixels, **work[value]))
                next(losses[value])
            else:
                seconds[value].append(seconds_an_epoch(losses[value]))
            bar.update()
    bar.close()
    rows = [cost(axis, value, work[value], seconds[value]) for value in values]
    for row in rows:
        row["relative"] = row["cost"]["median"] / rows[0]["cost"]["median"]
    return rows


def seconds_an_epoch(losses) -> float:
    """The mean of as many epochs as it takes for the clock to be exact."""
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < SHORTEST:
        next(losses)
        count += 1
    return (time.perf_counter() - start) / count


def cost(axis: str, value: int, work: dict, seconds: list[float]) -> dict:
    """Seconds an epoch, and a unit of work."""
    sizes = work["hidden_sizes"], work["latent_dim"]
    batch_size, num_samples = work["batch_size"], work.get("num_samples", 1)
    step = floor.training_products(*sizes, batch_size, num_samples)
    steps = work["images"] // batch_size
    images = steps * batch_size
    gflop = steps * floor.flops(step) / 1e9
    units = {"image": images, "sample of z": images * num_samples}
    amount = (units | {"GFLOP": gflop})[UNITS[axis]]
    return {
        "axis": axis,
        "value": value,
        "unit": UNITS[axis],
        "seconds": report.summary(seconds),
        "cost": report.summary([one / amount for one in seconds]),
        "gflop_a_second": gflop / report.summary(seconds)["median"],
    }


def line(row: dict) -> dict:
    """A row for people: milliseconds a GFLOP, microseconds an image or a sample."""
    small, scale = ("ms", 1e3) if row["unit"] == "GFLOP" else ("us", 1e6)
    return {
        "varied": row["axis"],
        "value": f"{row['value']:,}",
        "seconds an epoch": report.significant(row["seconds"]["median"]),
        "cost": report.significant(scale * row["cost"]["median"]),
        "spread": report.span(row["cost"], scale),
        "unit": f"{small} / {row['unit']}",
        "of the first": f"{row['relative']:.2f}",
        "GFLOP/s": f"{row['gflop_a_second']:.0f}",
    }


if __name__ == "__main__":
    report.run(main)
