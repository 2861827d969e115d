"""Which program made a run: a digest of its own files."""

import contextlib
import functools
import hashlib
import platform
import subprocess
from pathlib import Path

import numpy as np
import tensorflow as tf

from core import numerics

ROOT = Path(__file__).parents[2]
WHAT = {"tensorflow": "TensorFlow", "program": "the program", "device": "the device"}


@functools.cache
def version() -> dict:
    """{"sha256": of the product's files, "commit": of a checkout, else ""}."""
    digest, commit = hashlib.sha256(), ""
    patterns = "loop.py", "flags.py", "core/**/*.py"
    for path in sorted(path for each in patterns for path in ROOT.glob(each)):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    command = ["git", "--git-dir", f"{ROOT}/.git", "rev-parse", "--verify", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        git = subprocess.run(command, capture_output=True, text=True, timeout=5)
        commit = git.stdout.strip()
    return {"sha256": digest.hexdigest(), "commit": commit}


def versions() -> dict:
    """What a run's bits depend on."""
    return {
        "program": version()["sha256"][:12],
        "commit": version()["commit"],
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "device": numerics.device(),
    }


def remarks(made_with: dict) -> list[str]:
    """What made a run and is not what goes on with it, each in a line."""
    here, lines = versions(), []
    for name, what in WHAT.items():
        before = made_with.get(name, "unknown")
        if before.split(", ")[-1] != here[name]:
            lines.append(
                f"This run was begun with {what} {before}: with {here[name]} it goes "
                "on, but equal bits are promised for the same alone."
            )
    return lines


def with_these(made_with: dict) -> dict:
    """The `versions` that made a run, one after the other, and now these."""
    found = {}
    for name, here in versions().items():
        before = made_with.get(name, "unknown").split(", ")
        found[name] = ", ".join([*before, *[here] * (before[-1] != here)])
    return found
