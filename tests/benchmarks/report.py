"""What all benchmarks share: the command line, the data, statistics, table and JSON."""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from core.data import idx
from core.errors import UserError

ROOT = Path(__file__).parents[2]
ACTIVATIONS = ["relu", "tanh", "gelu", "silu"]
PACKAGES = ("tensorflow", "keras", "numpy", "torch", "jax")


# --- Command lines --------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message):
        message = " ".join(message.split())
        self.exit(2, f"error: {message} (--help lists the options)\n")


def parser(description: str, rounds: int) -> Parser:
    """The options that every benchmark has."""
    options = Parser(description=description.split("\n")[0])
    options.add_argument(
        "--data_dir", metavar="DIR", help="four IDX files; default: the built-in digits"
    )
    options.add_argument(
        "--rounds", type=positive, default=rounds, help="default: %(default)s"
    )
    options.add_argument("--json", metavar="FILE", help="write the table to it as well")
    return options


def add_network(options: Parser, batches=True) -> None:
    """The options that choose the network, and its batches if it is trained."""
    add = options.add_argument_group("the network").add_argument
    shown = "default: %(default)s"
    add("--hidden_sizes", type=sizes, default=(400,), metavar="N,N", help=shown)
    add("--latent_dim", type=positive, default=20, metavar="N", help=shown)
    add("--activation", choices=ACTIVATIONS, default="relu", help=shown)
    if batches:
        add("--batch_size", type=positive, default=128, metavar="N", help=shown)


def add_binarization(options: Parser, default: str, help: str) -> None:
    """The option that chooses what this project makes of the pixels."""
    choices = ["none", "dynamic", "static", "threshold"]
    options.add_argument("--binarization", choices=choices, default=default, help=help)


def network(arguments) -> dict:
    """The values of those options."""
    names = ("hidden_sizes", "latent_dim", "activation", "batch_size")
    return {name: vars(arguments)[name] for name in names if name in arguments}


def parse(options: Parser):
    """The parsed command line; ends the program where --json cannot be written."""
    arguments = options.parse_args()
    if arguments.json and not Path(arguments.json).absolute().parent.is_dir():
        options.error(f"--json={arguments.json}: there is no such folder")
    return arguments


def positive(text: str) -> int:
    """A positive integer of the command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return int(text)


def sizes(text: str) -> tuple[int, ...]:
    """Positive integers of the command line, joined by commas."""
    return tuple(positive(part) for part in text.split(","))


def run(main) -> None:
    """main(), and one line instead of a traceback for what a user can mend."""
    try:
        main()
    except (UserError, ValueError, OSError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")


def child(module: str, *arguments: str) -> str:
    """What a module of the benchmarks prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = [line for line in done.stderr.split("\n") if line.strip()]
        raise ValueError(f"{module} failed: {' '.join(said[-1:])}")
    return done.stdout


# --- Data -----------------------------------------------------------------------------


@contextlib.contextmanager
def data_folder(data_dir: str | None):
    """The folder with four IDX files that all systems read: `data_dir`, or a temporary
    one with the built-in digits; and (training set, test set) in it."""
    with tempfile.TemporaryDirectory() as folder:
        if not data_dir:
            child("digits", folder)
        folder = str(Path(data_dir or folder).resolve())
        yield folder, *idx.load(folder)


def expect_at_most(option: str, value: int, digits, name: str) -> None:
    """Raise ValueError if an option asks for more images than a set has."""
    if value > len(digits.images):
        raise ValueError(
            f"expected at most {len(digits.images)}, the size of the {name} set, for "
            f"{option}, got {value}"
        )


# --- Numbers --------------------------------------------------------------------------


def summary(values) -> dict:
    """Median and spread (least and most) of measured values, beside the values."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "values": list(values),
    }


def ratios(values, others) -> list[float]:
    """value / other, round by round: both saw the same machine."""
    return [a / b for a, b in zip(values, others, strict=True)]


def ratio(values, others) -> float:
    """The median of those `ratios`."""
    return statistics.median(ratios(values, others))


def significant(value: float, digits: int = 3) -> str:
    """A number for people: three digits, and never an exponent."""
    if not value:
        return "0"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if not whole:
        return f"{value:.{digits}g}" if abs(value) >= 1e-4 else f"{value:.6f}"
    return f"{value:,.{max(0, digits - whole)}f}"


def span(numbers: dict, scale: float = 1) -> str:
    """The spread of a `summary`."""
    least, most = (significant(scale * numbers[key]) for key in ("least", "most"))
    return f"{least} to {most}"


# --- Output ---------------------------------------------------------------------------


def print_table(rows: list[dict]) -> None:
    """Rows of texts as a Markdown table; what a row lacks stays empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    texts = [columns] + [[str(row.get(c, "")) for c in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    texts.insert(1, ["-" * width for width in widths])
    for row in texts:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        print(f"| {' | '.join(cells)} |", flush=True)


def write_json(arguments, rows: list[dict], **more) -> None:
    """Rows of numbers to --json, if it is given, with machine, date and options."""
    if not arguments.json:
        return
    options = {
        k: v for k, v in vars(arguments).items() if k not in ("json", "data_dir")
    }
    record = {
        "benchmark": Path(sys.argv[0]).stem,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"),
        "machine": machine(),
        "data": Path(arguments.data_dir).resolve().name
        if arguments.data_dir
        else "built-in digits",
        "options": options,
        **more,
        "rows": rows,
    }
    Path(arguments.json).write_text(json.dumps(record, indent=2) + "\n")


def _card() -> str | None:
    """The name of the GPU, if there is one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        return found.stdout.strip()
    return None


def machine() -> dict:
    """What the numbers depend on."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if "model name" in line]
        processor = names[0] if names else processor
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": processor,
        "card": _card(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average_at_the_end": os.getloadavg()[0],
        "versions": versions,
    }
