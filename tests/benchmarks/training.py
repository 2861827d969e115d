"""Seconds an epoch of this project and of others: `-m tests.benchmarks.training`.

Each system trains in a process of its own, and they take turns (A B C A B C ...). The
epoch that compiles is dropped.
"""

import importlib.util
from collections import Counter

from tests.benchmarks import floor, report
from tests.benchmarks.compare import OURS, compare

SYSTEMS = {  # name in --systems -> name in the table, function in peers, package
    "ours": (OURS, "this_project", "tensorflow"),
    "keras": ("Keras, fit", "keras_fit", "keras"),
    "torch": ("PyTorch, loop", "pytorch", "torch"),
    "jax": ("JAX, scan", "jax_scan", "jax"),
    "tensorflow": ("TensorFlow, a call a step", "tensorflow_steps", "tensorflow"),
}


def main():
    """One table."""
    arguments = parse()
    sizes, batch_size = arguments.hidden_sizes, arguments.batch_size
    with report.data_folder(arguments.data_dir) as (folder, digits, _):
        report.expect_at_most("--batch_size", batch_size, digits, "training")
        steps = len(digits.images) // batch_size
        step = floor.training_products(sizes, arguments.latent_dim, batch_size)
        epoch = Counter({product: steps * count for product, count in step.items()})
        work = report.network(arguments) | {"data_dir": folder}
        systems, missing = choose(arguments, work)
        compare(arguments, systems, missing, epoch, steps * batch_size, "images")


def parse():
    """The command line."""
    options = report.parser(__doc__, rounds=7)
    report.add_network(options)
    explained = "of this project only; the others see grey pixels (none)"
    report.add_binarization(options, "none", explained)
    options.add_argument(
        "--systems",
        nargs="+",
        choices=list(SYSTEMS),
        default=list(SYSTEMS),
        help="default: all of them",
    )
    return report.parse(options)


def choose(arguments, work: dict):
    """(what `workers.interleave` takes, {name: why it is left out})."""
    systems, missing = {}, {}
    for key in arguments.systems:
        name, function, package = SYSTEMS[key]
        more = {"binarization": arguments.binarization} if key == "ours" else {}
        if importlib.util.find_spec(package):
            systems[name] = ("peers", function, work | more)
        else:
            missing[name] = f"{package} is not installed"
    return systems, missing


if __name__ == "__main__":
    report.run(main)
