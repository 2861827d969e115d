"""Over 500 bad inputs: each ends in one line, none in a traceback or a long wait."""

import gzip
import json
import random
import re
import sys
import tracemalloc

import numpy as np
import pytest

import flags
from core import settings as settings_of
from core.data import idx
from core.errors import UserError
from core.run import config, metrics
from tests.conftest import idx_bytes, write_idx_folder

DEFAULTS = settings_of.values_of(settings_of.Settings())
HOSTILE = (
    *("", " ", "-", "--", "x", "-1", "0", "1e999", "nan", "inf", "-inf", "None", "[]"),
    *(
        "1,2",
        "1;2",
        "../..",
        "\x00",
        "\n",
        "\udcff",
        "é",
        "１",
        "0x10",
        "1_0",
        "9" * 400,
    ),
    *("{}", "%s%n", "$(true)", "'", '"', "--epochs=3", "true", "9223372036854775808"),
)


def is_one_line(message):
    return 0 < len(message) < 2000 and "\n" not in message.strip()


# --- Flags: every flag with every hostile value ---------------------------------------


@pytest.mark.parametrize("name", [*settings_of.FIELDS, "flagfile", "unknown"])
def test_hostile_flag_values(name, capsys):
    """Refused in one line with exit code 2, or understood as a value of its type."""
    for value in HOSTILE:
        try:
            flags.parse([sys.argv[0], f"--{name}={value}"])
            found = settings_of.values_of(flags.settings()).get(name)
        except SystemExit as stop:
            assert stop.code == 2, value
            assert is_one_line(capsys.readouterr().err), value
        else:
            default = DEFAULTS.get(name)
            assert type(found) is type(default), value
            assert found == found, value  # not nan


def test_hostile_flagfiles(tmp_path, capsys):
    path = tmp_path / "a.flags"
    contents = [
        f"--flagfile={path}\n--epochs=x\n",  # includes itself
        "--epochs\n",
        "epochs=3 4\n",
        "\x00\x01\x02",
        "--nosuchflag=1\n",
        "--epochs=3\n--epochs=-3\n",
        "=\n",
        "-" * 10_000 + "\n",
    ]
    for content in [*(text.encode() for text in contents), b"\xff\xfe--epochs=3"]:
        path.write_bytes(content)
        with pytest.raises(SystemExit) as stop:
            flags.parse([sys.argv[0], f"--flagfile={path}"])
        assert stop.value.code == 2
        assert is_one_line(capsys.readouterr().err.split("error: ")[-1])


# --- Files: random damage to good ones ------------------------------------------------


def mutations(content, count, seed):
    """`content` with a few bytes changed, inserted or cut, `count` times."""
    chance = random.Random(seed)
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(min(len(damaged), 40) or 1)
            kind = chance.randrange(4)
            if kind == 0:
                damaged[at : at + 1] = bytes([chance.randrange(256)])
            elif kind == 1:
                damaged[at:at] = bytes(chance.randrange(256) for _ in range(3))
            elif kind == 2:
                del damaged[at : at + chance.randint(1, 8)]
            else:
                del damaged[chance.randrange(len(damaged) + 1) :]
        if bytes(damaged) != content:
            yield bytes(damaged)


@pytest.mark.parametrize("gz", [False, True])
def test_mutated_idx_files(tmp_path, digits, gz):
    folder = write_idx_folder(tmp_path, *digits, gz=gz)
    path = folder / ("t10k-images-idx3-ubyte" + ".gz" * gz)
    refused, tried = 0, 0
    for content in mutations(path.read_bytes(), 150, seed=1):
        path.write_bytes(content)
        tried += 1
        try:
            _, test_set = idx.load(folder)
            assert test_set.images.shape == (60, 28, 28)  # only pixels differ
        except UserError as error:
            refused += 1
            assert is_one_line(str(error))
    assert refused > 0.6 * tried


def test_small_files_cannot_take_much_memory(tmp_path, digits):
    """A gzip bomb, and headers that promise far more than there is."""
    folder = write_idx_folder(tmp_path, *digits, gz=True)
    path = folder / "train-images-idx3-ubyte.gz"
    header = np.array([0x803, 2**31 - 1, 28, 28], ">u4").tobytes()
    bombs = [
        gzip.compress(header + bytes(2**26), 1),
        gzip.compress(idx_bytes(np.zeros([1, 28, 28])) + bytes(2**26), 1),
        gzip.compress(np.array([0x803] + [2**32 - 1] * 3, ">u4").tobytes()),
    ]
    for bomb in bombs:
        path.write_bytes(bomb)
        tracemalloc.start()
        with pytest.raises(UserError):
            idx.load(folder)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**25


CONFIG = {"format": config.FORMAT, "flags": {"epochs": 3}, "dataset": {"name": "x"}}


def test_mutated_configs(tmp_path):
    config.write(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    for content in mutations(path.read_bytes(), 150, seed=2):
        path.write_bytes(content)
        try:
            found = config.read(tmp_path)
        except UserError as error:
            assert is_one_line(str(error))
        else:
            same = json.loads(content)
            same.pop("sha256")
            assert found == CONFIG == same  # white space


def test_hostile_records_of_flags():
    values = (None, -1, 1.5, "x", [], {}, True, "../../x", 10**400)
    good = json.loads(json.dumps(DEFAULTS))
    for name in settings_of.FIELDS:
        for value in values:
            if type(value) is type(good[name]):
                continue
            with pytest.raises(UserError) as error:
                settings_of.from_record(good | {name: value}, "run")
            assert is_one_line(str(error.value))


def test_mutated_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (10, 20):
        metrics.append(path, {"epoch": step // 10, "step": step, "train_loss": 1.0})
    for content in mutations(path.read_bytes(), 150, seed=3):
        path.write_bytes(content)
        try:
            assert all(isinstance(r["step"], int) for r in metrics.read(path))
            metrics.keep_until(path, 10)
            metrics.append(path, {"step": 20})
            assert metrics.read(path)[-1] == {"step": 20}
        except UserError as error:
            assert is_one_line(str(error))
            assert re.search(r"metrics.jsonl: line \d+ is damaged", str(error))
