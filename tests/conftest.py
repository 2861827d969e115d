"""What several test files share: small IDX folders and small runs on them."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import loop
from core import settings as settings_of
from core.data import idx, synthetic

ROOT = Path(__file__).parent.parent
# As the program asks, for a card that all workers share; read at its first use.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    # What a script's `&` job or nohup ignores, the programs that tests start would too.
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *arguments: None)


def idx_bytes(array, magic=None):
    """A uint8 array as an IDX file's content."""
    magic = 0x800 + array.ndim if magic is None else magic
    header = np.array([magic, *array.shape], ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_idx_folder(folder, train_set, test_set, dot="-", gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for split, digits in zip(idx.SPLITS, (train_set, test_set), strict=True):
        for kind, array in zip(("images", "labels"), digits, strict=True):
            name = f"{split}-{kind}{dot}idx{array.ndim}-ubyte"
            content = idx_bytes(array)
            if gz:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def digits():
    """(training set of 330, test set of 60)."""
    return synthetic.draw(1, sizes=(330, 60))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, digits):
    return write_idx_folder(tmp_path_factory.mktemp("data") / "tiny", *digits)


def small_settings(data_dir, folder):
    """The flags of a run of 15 steps an epoch that compiles fast, and has an average of
    its weights. Whatever a test relies on stands here, and not in the defaults."""
    return dict(
        data_dir=str(data_dir),
        run_dir=str(folder),
        hidden_sizes=(8,),
        activation="relu",
        batch_size=20,
        validation_size=30,
        epochs=2,
        learning_rate=1e-3,
        learning_rate_schedule="constant",
        ema_decay=0.9,
        jit=False,
        figures=False,
    )


@pytest.fixture
def small(data_dir, tmp_path):
    return small_settings(data_dir, tmp_path / "run")


def run(settings, stop=None, **changes):
    """`loop.run` as if these flags had been typed."""
    settings = settings | changes
    loop.run(settings_of.of_values(settings), set(settings), stop)


@pytest.fixture(scope="session")
def two_epochs(data_dir, tmp_path_factory):
    """The folder of a small run."""
    folder = tmp_path_factory.mktemp("two_epochs")
    run(small_settings(data_dir, folder))
    return folder


@pytest.fixture
def trained(small, two_epochs):
    """The settings of a small run that has ended: a test may do with it as it likes."""
    shutil.copytree(two_epochs, small["run_dir"])
    return small


@pytest.fixture(scope="session")
def straight(data_dir, tmp_path_factory):
    """The folder of a small run of three epochs that was never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    run(small_settings(data_dir, folder), epochs=3)
    return folder


@pytest.fixture
def unreported(monkeypatch):
    """No evaluation and no figures at the end of training: they take the most time."""
    monkeypatch.setitem(loop.MODES, "train", (lambda *job: None, "evaluation"))


def program(*arguments, script=(str(ROOT / "loop.py"),), by=(), **keywords):
    """Start `python loop.py` (or another script) with these arguments, `by` a shell."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*by, sys.executable, *script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | keywords.pop("env", {}),
        **keywords,
    )


def as_arguments(settings):
    """Settings as command-line flags."""
    arguments = []
    for name, value in settings.items():
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no{name}")
        elif isinstance(value, tuple):
            arguments.append(f"--{name}={','.join(map(str, value))}")
        else:
            arguments.append(f"--{name}={value}")
    return arguments
