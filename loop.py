"""Train a variational autoencoder, step by step: `python loop.py --epochs=30`.

run -> train -> train_block -> train_step -> loss_and_gradients, top to bottom.
"""

import sys
import time

from core.run import process

if __name__ == "__main__":
    process.prepare()
    import flags
    from core.progress import say

    flags.parse(sys.argv)  # before TensorFlow's slow import: a typo shows at once
    process.begin(flags.dense())
    say("Importing TensorFlow")
    with process.importing():
        import tensorflow as tf

import tensorflow as tf

import flags
from core import consistency, numerics
from core import settings as settings_of
from core.data import batches, datasets
from core.errors import UserError
from core.evaluation import record as records
from core.model.build import build
from core.progress import complain, say
from core.run import program, text
from core.run.folder import NoFolder, RunFolder
from core.run.screen import Screen
from core.show import comparison, encode, explorer, export, film, gallery, page, report
from core.training import adam, estimators, failure, objective, replicas, schedules
from core.training import state as states

MODES = {  # how a run ends in each mode, and the group of settings which that takes
    "train": (report.evaluate, "evaluation"),
    "evaluate": (report.evaluate, "evaluation"),
    "generate": (gallery.generate, "show"),
    "report": (page.make, "evaluation"),
    "explore": (explorer.explore, "show"),
    "encode": (encode.encode, "show"),
    "export": (export.export, "model"),
}
WITHOUT_DATA = "generate", "encode", "export"


def main(argv) -> int:
    """Exit code 0; 1 for what a user can mend, in one line; 128 + signal if stopped."""
    del argv
    settings, typed = flags.settings(), flags.typed()
    stop = process.Stop(text.farewell(settings.run.mode))
    try:
        run(settings, typed, stop)
    except (UserError, OSError, MemoryError, tf.errors.ResourceExhaustedError) as error:
        complain(f"error: {text.explain(error, settings.run.mode)}")
        return 1
    finally:
        stop.end()
    return 128 + stop.asked if stop.asked else 0


def run(asked, typed=None, stop=None) -> None:
    """One run of the program in the mode of the `Settings` that are `asked` for.

    `typed` are the names of those that a user gave, by default those that the mode uses
    and that are not as by default; modes other than training take the run's own for all
    others.
    """
    typed = consistency.given(asked) if typed is None else typed
    if asked.run.mode == "compare":
        return comparison.compare(asked)
    stop = stop or process.NoStop()
    with replicas.Team(asked.run) as team, numerics.execution(asked.run.eager):
        team.expect_same({"program": program.version()["sha256"][:12]})
        folder = team.enter_context(RunFolder(asked.run)) if team.chief else NoFolder()
        # What shapes a run is kept in its folder.
        settings = team.settings(folder.past, asked, typed)
        folder.expect_start(settings.model)
        data, ink = None, 0.5
        if settings.run.mode not in WITHOUT_DATA or settings.show.interpolate:
            data = datasets.load(folder.data_settings(settings.data), say)
            folder.expect_data(data.record)
            team.expect_same({"data": data.record["sha256"][:12]})
            ink = batches.mean_pixel(data.train.pixels)
        model = build(settings.model)
        params = model.init(settings.run.seed, ink)
        state = states.init(params, settings.adam)
        folder.restore(state)

        if settings.run.mode == "train":
            datasets.expect_steps(data, settings.training, model.conditional)
            changes = consistency.changes(folder.past, settings)
            folder.begin(settings_of.values_of(settings), data.record, changes)
            say(text.describe(settings.model, settings.objective, data))
        team.share(state, stop)
        if settings.run.mode == "train":
            train(model, state, data, settings, folder, stop)
        if not stop.signal:
            end, group = MODES[settings.run.mode]
            work = model, state.weights, data, settings.run, getattr(settings, group)
            team.end(end, records.log_marginal, folder, work)


def train(model, state, data, settings, folder=None, stop=None) -> None:
    """Take the steps that are left; when stopped, save and say how to go on.

    Without a `RunFolder` the run is kept in `state` alone.

    Raises:
      UserError: settings or data cannot be trained with, or a number is not finite.
    """
    folder, stop = folder or NoFolder(), stop or process.NoStop()
    consistency.check(settings)
    datasets.expect_steps(data, settings.training, model.conditional)
    seed, epochs = settings.run.seed, settings.training.epochs
    loss_settings, adam_settings = settings.objective, settings.adam
    batch_size = settings.training.batch_size
    epoch_steps = len(data.train.pixels) // batch_size
    done, total = int(state.step), epochs * epoch_steps
    say(text.position(folder.path, done, epochs, epoch_steps))
    if done >= total:
        say("Nothing is left to train; more --epochs would go on from here.")
        return
    horizon = schedules.horizon(loss_settings, epochs, epoch_steps)
    noise_shape = batches.noise_shape(model, loss_settings, batch_size, epoch_steps)
    held_out = datasets.fix(data, "validation", seed)
    seconds = folder.seconds  # of the epoch that `state` is in

    # Compile, so that no epoch's time has it in: a block of no steps changes nothing.
    jit = numerics.compiles(model, settings.run)
    compiled_block = replicas.compiled(train_block, jit)
    epoch = batches.epoch(data, model, batch_size, seed, 0)
    block = batches.block(epoch, 0, batches.noise(seed, done, noise_shape), 0)
    compiled_block(model, state, block, loss_settings, adam_settings, horizon)
    del epoch, block
    process.tidy()  # 85 MB of the compiler's by default

    stop.deferred = True
    with numerics.execution(settings.run.eager), Screen(done, total) as screen:
        for number in range(done // epoch_steps, epochs):
            start, first = time.perf_counter(), number * epoch_steps
            if done == first:
                seconds = 0.0
                state.totals.assign(tf.zeros_like(state.totals))
            epoch = batches.epoch(data, model, batch_size, seed, number)
            while done < first + epoch_steps:
                noise = batches.noise(seed, done, noise_shape)
                block = batches.block(epoch, done - first, noise)
                taken, measures, squares = compiled_block(
                    model, state, block, loss_settings, adam_settings, horizon
                )
                done += int(taken)
                failure.expect_finite(measures, state, squares, adam_settings, folder)
                screen.show(number + 1, done, measures.numpy())
                if stop.signal:
                    break
            seconds += time.perf_counter() - start
            del epoch, block  # before the next are drawn: a third of the memory
            if done == first + epoch_steps:
                record = states.epoch_record(state, epoch_steps, seconds)
                record |= schedules.at(done - 1, loss_settings, adam_settings, horizon)
                record |= records.validation(model, state.weights, held_out, seed)
                replicas.expect_equal(state)
                record |= stop.pauses()  # its seconds are then not of training alone
                values = record.values()
                failure.expect_finite(values, state, squares, adam_settings, folder)
                folder.add_epoch(record)
                film.add_frame(model, state.weights, folder, number + 1, settings.run)
                screen.say(text.epoch_line(record, epochs))
            stopping = stop.signal
            due = (number + 1) % settings.run.checkpoint_every == 0
            if due or done == total or stopping:
                failure.expect_finite_weights(state, squares, adam_settings, folder)
                folder.save(done, seconds)
            if stopping:
                break
    stop.deferred = False
    if stop.signal:
        where = text.position(folder.path, done, epochs, epoch_steps)
        say(f"Stopped. {where}\n{folder.how_to_go_on()}")


def train_block(model, state, block, loss_settings, adam_settings, horizon):
    """Take `block.count` steps as one call -> steps taken, `MEASURES` [4] and squared
    norms [V] of the last.

    It stops after the first step whose loss or gradient is not finite: `state` is
    spoiled then, and what is returned of that step tells why. One trace and one
    compilation serve every call, for nothing that varies is a Python number.
    """
    taken, dtype = tf.constant(0), tf.nest.flatten(state.params)[0].dtype
    measures = tf.zeros([len(states.MEASURES)], dtype)
    squares = tf.zeros([len(tf.nest.flatten(state.params))], dtype)
    totals = tf.identity(state.totals)
    while taken < block.count and tf.reduce_all(tf.math.is_finite(measures)):
        batch = batches.batch(block, taken, dtype)
        measures, squares = train_step(
            model, state, batch, loss_settings, adam_settings, horizon
        )
        totals += tf.cast(measures, tf.float64)
        taken += 1
    state.totals.assign(totals)
    return taken, measures, squares


@tf.autograph.experimental.do_not_convert  # it takes seconds, and finds nothing
def train_step(model, state, batch, loss_settings, adam_settings, horizon):
    """Take one step -> its `MEASURES` [4], and each gradient's squared norm [V]."""
    kl_weight = schedules.kl_weight_at(
        state.step, loss_settings, horizon, batch.x.dtype
    )
    losses, grads = replicas.sum_over(
        loss_and_gradients, model, state.params, batch, loss_settings, kl_weight
    )
    return replicas.part(update)(state, losses, grads, adam_settings, horizon)


def update(state, losses, grads, adam_settings, horizon):
    """Change the weights by these gradients -> what `train_step` gives."""
    squares = adam.squared_norms(grads)
    norm = tf.sqrt(tf.reduce_sum(squares))
    if adam_settings.clip_norm:
        grads = adam.clip(grads, norm, adam_settings.clip_norm)
    rate = schedules.learning_rate_at(state.step, adam_settings, horizon, norm.dtype)
    adam.apply(state, grads, numerics.after(rate, norm), adam_settings)
    adam.follow(state, adam_settings.ema_decay)
    state.step.assign_add(1)
    return tf.stack([*losses, norm]), squares


def loss_and_gradients(model, params, batch, loss_settings, kl_weight=1.0):
    """(`Losses`, gradients in the order of `tf.nest.flatten(params)`).

    By the standard estimator every gradient is the tape's; the others give the encoders
    gradients of lower variance.
    """
    estimator = loss_settings.estimator
    with tf.GradientTape(persistent=estimator != "standard") as tape:
        tape.watch(params)  # of another device they are no variables, but copies
        inference = model.infer(params, batch.x, batch.noise, batch.y)
        losses = objective.losses(inference, batch.x, loss_settings, kl_weight)
    if estimator == "standard":
        grads = tape.gradient(losses.loss, params)
    else:
        weights = estimators.path_weights(inference, batch.x, estimator)
        grads = estimators.gradients(
            tape, losses.loss, model, params, inference, weights
        )
    return losses, tf.nest.flatten(grads)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
