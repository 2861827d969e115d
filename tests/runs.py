"""What is compared of two runs, and how one is stopped."""

import signal
from pathlib import Path

import numpy as np
import tensorflow as tf

from core.run import metrics, process

CLOCK = ("seconds",)


def weights_and_moments(folder):
    """What `newest_checkpoint` holds of a small dense run: no more and no less.

    Eight variables, their average and two moments, the step and the totals.
    """
    found = newest_checkpoint(folder)
    assert len(found) == 4 * 8 + 2
    return found


def newest_checkpoint(folder):
    """Every number of the newest checkpoint but the save counter."""
    path = tf.train.latest_checkpoint(str(folder))
    reader = tf.train.load_checkpoint(path)
    names = [
        name
        for name in reader.get_variable_to_shape_map()
        if not name.startswith(("save_counter", "_CHECKPOINTABLE"))
    ]
    return {name: reader.get_tensor(name) for name in names}


def timeless(folder):
    """The records of metrics.jsonl without what the clock said."""
    records = metrics.read(Path(folder) / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in CLOCK} for r in records]


def assert_same_numbers(a, b):
    """Two dicts of arrays have the same names and the same bits."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_same_run(one, other):
    assert_same_numbers(weights_and_moments(one), weights_and_moments(other))
    assert timeless(one) == timeless(other) != []


class StopAfter(process.NoStop):
    """A stop request that arrives after so many looks at it."""

    def __init__(self, looks, number=signal.SIGTERM):
        self.looks, self.number = looks, number

    @property
    def signal(self):
        self.looks -= 1
        return self.number if self.looks < 0 else 0
