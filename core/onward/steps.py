"""What the trainings of this folder share: what loop.py does, in short."""

import numpy as np
import tensorflow as tf

from core import consistency, numerics
from core.data import batches, datasets
from core.errors import UserError
from core.progress import say
from core.settings import values_of
from core.training import adam, schedules


def epochs(folder, state, data, settings, stop):
    """The numbers of the epochs that are left of the run in a `RunFolder`; one in which
    it is asked to stop is the last. UserError: it is another run."""
    consistency.going_on(folder.past, settings, set())
    folder.expect_data(data.record)
    datasets.expect_steps(data, settings.training, conditional=False)
    folder.restore(state)
    changes = consistency.changes(folder.past, settings)
    folder.begin(values_of(settings), data.record, changes)
    stop.deferred = True
    while folder.epoch < settings.training.epochs and not stop.signal:
        yield folder.epoch
    stop.deferred = False
    if stop.signal:
        say(f"Stopped. {folder.how_to_go_on()}")


def block(split, settings, number: int, k: int, d: int):
    """All steps of epoch `number` over a `Split`, each with noise [k, B, d]."""
    seed, batch_size = settings.run.seed, settings.training.batch_size
    order = batches.epoch_order(seed, number, len(split.pixels), batch_size)
    shape = len(order), k, batch_size, d
    noise = batches.noise(seed, number * len(order), shape)
    return batches.block(batches.Epoch(*split, order), 0, noise)


def compiled(train_step, count: int):
    """`train_step(state, batch, settings.Adam)` -> [count], for all steps of a block as
    one compiled call, which yields their means."""
    train_step = tf.autograph.experimental.do_not_convert(train_step)

    def train_block(state, block, adam_settings):
        taken, sums = tf.constant(0), tf.zeros([count])
        while taken < block.count:
            batch = batches.batch(block, taken)
            sums, taken = sums + train_step(state, batch, adam_settings), taken + 1
        return sums / tf.cast(taken, tf.float32)

    return tf.function(train_block, jit_compile=True)


def learn(state, grads, adam_settings):
    """Follow gradients for a step, and count it -> their norm."""
    grads = tf.nest.flatten(grads)
    norm = tf.sqrt(tf.reduce_sum(adam.squared_norms(grads)))
    rate = schedules.learning_rate_at(state.step, adam_settings, None)
    adam.apply(state, grads, numerics.after(rate, norm), adam_settings)
    adam.follow(state, adam_settings.ema_decay)
    state.step.assign_add(1)
    return norm


def keep(folder, settings, names, means) -> None:
    """Say and record an epoch's named means, and save; UserError: one is not finite."""
    if not np.all(np.isfinite(means)):
        slower = f"--learning_rate={settings.adam.learning_rate / 10:g}"
        raise UserError(f"the loss is not finite. {folder.how_to_go_on(slower)}")
    means = dict(zip(names, means.numpy().tolist(), strict=True))
    folder.add_epoch({"epoch": folder.epoch, "step": folder.step} | means)
    folder.save(folder.step, 0.0)
    texts = (f"{name} {value:.4f}" for name, value in means.items())
    say(f"epoch {folder.epoch}/{settings.training.epochs}  {'  '.join(texts)}")
