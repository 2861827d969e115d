"""All that training changes."""

import hashlib
from typing import NamedTuple

import tensorflow as tf

from core.training import adam
from core.training.objective import Losses

MEASURES = (*Losses._fields, "gradient_norm")  # of a step


class TrainState(NamedTuple):
    """Saved and restored as it stands; there is no clock in it.

    `totals` are sums of the steps' `MEASURES` over the current epoch, so that its means
    survive a stop in its middle.
    """

    params: dict
    m: dict  # first moments, shaped like params
    v: dict  # second moments
    average: dict  # the weights' moving average, shaped like params; {} for none
    step: tf.Variable  # int64 []: steps taken (int32 cannot be on a GPU)
    totals: tf.Variable  # float64 [4]

    @property
    def weights(self) -> dict:
        """The weights to evaluate and to draw with: the average where there is one."""
        return self.average or self.params


def init(params, settings) -> TrainState:
    """A state that has taken no step, for training with `settings.Adam`."""
    averaged = settings.ema_decay > 0
    return TrainState(
        params,
        adam.init_moments(params),
        adam.init_moments(params),
        tf.nest.map_structure(tf.Variable, params) if averaged else {},
        tf.Variable(0, dtype=tf.int64, name="step"),
        tf.Variable(tf.zeros([len(MEASURES)], tf.float64), name="totals"),
    )


def digest(variables) -> str:
    """What tells these numbers, a tree of tensors, from all others."""
    content = b"".join(v.numpy().tobytes() for v in tf.nest.flatten(variables))
    return hashlib.sha256(content).hexdigest()[:12]


def epoch_record(state, epoch_steps: int, seconds: float) -> dict:
    """The flat record of the epoch that has ended: means over its steps. `train_loss`
    is what was minimized."""
    step = int(state.step)
    loss, distortion, rate, gradient_norm = (state.totals / epoch_steps).numpy()
    return {
        "epoch": step // epoch_steps,
        "step": step,
        "seconds": seconds,
        "train_loss": float(loss),
        "train_distortion": float(distortion),
        "train_rate": float(rate),
        "gradient_norm": float(gradient_norm),
    }
