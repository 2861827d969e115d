"""What depends on the number of the step alone."""

import math
from typing import NamedTuple

import tensorflow as tf

INVERSE_SQRT_STEPS = 1000  # until the rate has fallen to 0.71 of what it began with


class Horizon(NamedTuple):
    """How many steps the schedules take."""

    warmup: int  # until the KL has its whole weight
    total: int  # of the whole run: where a cosine ends


def horizon(loss_settings, epochs: int, epoch_steps: int) -> Horizon:
    """The schedules' lengths for a run of so many epochs."""
    return Horizon(loss_settings.warmup_epochs * epoch_steps, epochs * epoch_steps)


def kl_weight_at(step, settings, horizon: Horizon, dtype=tf.float32):
    """The weight of the KL at `step` (from 0): up to beta in a straight line.

    `settings` are `settings.Objective`. Warm-up: Sonderby et al. (arXiv 1602.02282),
    after the annealing of Bowman et al. (arXiv 1511.06349). beta: Higgins et al.
    (2017).
    """
    if not horizon.warmup:
        return settings.beta
    done = tf.cast(step, dtype) / horizon.warmup
    return settings.beta * tf.minimum(done, 1.0)


def learning_rate_at(step, settings, horizon: Horizon, dtype=tf.float32):
    """The rate for `step` (from 0): falling without an end, constant, or half a cosine
    down to 0.

    `settings` are `settings.Adam`. Inverse square root: as in theorem 4.1 of Kingma and
    Ba (arXiv 1412.6980), but slowly at first. Cosine: Loshchilov and Hutter (arXiv
    1608.03983), equation (5), without restarts.
    """
    if settings.learning_rate_schedule == "constant":
        return settings.learning_rate
    if settings.learning_rate_schedule == "inverse_sqrt":
        done = tf.cast(step, dtype) / INVERSE_SQRT_STEPS
        return settings.learning_rate * tf.math.rsqrt(1 + done)
    done = tf.minimum(tf.cast(step, dtype) / horizon.total, 1.0)
    return settings.learning_rate * 0.5 * (1 + tf.cos(math.pi * done))


def at(step, loss_settings, adam_settings, horizon: Horizon) -> dict:
    """What is scheduled at `step`, as an epoch's record has it of its last one."""
    return {
        "learning_rate": float(learning_rate_at(step, adam_settings, horizon)),
        "kl_weight": float(kl_weight_at(step, loss_settings, horizon)),
    }
