"""Train a variational autoencoder, step by step: `python loop.py --epochs=30`.

Read `run` first, then `train` and `blocks`. Only this module knows all the others.
"""

import contextlib
import dataclasses
import errno
import math
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from absl import app, logging

import flags
from core import files, process
from core.process import say

if __name__ == "__main__":
    process.open_closed_streams()
    # Until `Stop` there is nothing to save.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    app.define_help_flags()
    flags.parse(sys.argv)  # before TensorFlow's slow import: a typo shows at once

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with process.stderr_off():  # which TensorFlow's import fills, whatever one asks
    import numpy as np
    import tensorflow as tf
    import tqdm

    from core import (
        adam,
        batches,
        checkpoint,
        datasets,
        evaluate,
        figures,
        hierarchical,
        metrics,
        mnist,
        networks,
        objective,
        probes,
        reports,
        rng,
        step,
        vae,
    )

BLOCK_SAMPLES = 12_800  # in one compiled call: a second or less, then a stop is seen
CONV_COST = 10  # of a sample, roughly, where a dense one costs 1
PICTURED = 400  # at most so many of the generated digits
# Errors of a disk that cannot be written. None: TensorFlow's, which carry no number.
NO_ROOM = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
NO_FOLDER = (errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.EPERM)
MENDABLE = (ValueError, OSError, tf.errors.OpError, MemoryError, OverflowError)


class Job(NamedTuple):
    """Everything that training, evaluating and drawing need."""

    config: flags.Config
    folder: Path
    data: datasets.Data | None  # grey; None in --mode=generate
    fixed: Callable  # name of a split -> that `Split` as every evaluation sees it
    to_batch: Callable  # (uint8 pixels, labels) -> x, y
    infer: Callable  # (params, x, noise, y=y) -> Inference
    decode: Callable  # (params, z, y=y) -> logits of p(x|z)
    generate: Callable  # (params, noise, y=y) -> logits of a draw from the prior
    evaluate: Callable  # (pixels, labels, index) -> Evaluation
    state: step.TrainState
    saver: tf.train.Checkpoint

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.train.pixels) // self.config.batch_size


def main(argv) -> int:
    """Exit code 0; 1 for what a user can mend, in one line; 128 + signal if stopped."""
    del argv
    logging.set_verbosity(logging.ERROR)  # TensorFlow narrates its checkpoints
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a path in a narrow locale
    config = flags.config()
    stop = process.Stop(
        "Stopped; what was saved is there, and the same command (with --resume=auto) "
        "goes on from it."
        if config.mode == "train"
        else f"Stopped; the same command begins --mode={config.mode} anew."
    )
    try:
        run(config, flags.given(), stop)
    except MENDABLE as error:
        if isinstance(error, tf.errors.InvalidArgumentError) and config.eager:
            raise  # shapes that do not fit: a mistake in the code, for its debugger
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    finally:
        process.ignore_signals()
    return 128 + stop.signal if stop.signal else 0


def explain(error: Exception) -> str:
    """The error in one line, and what can be done about it."""
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "OOM when" in message:
        return (
            "out of memory: choose smaller sizes, or a smaller --batch_size or "
            "--num_samples"
        )
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        message += (
            "; what was saved before is intact: make room, or choose a --run_dir that "
            "can be written, and run the same command again (with --resume=auto)"
        )
    elif isinstance(error, OSError) and error.errno in NO_FOLDER:
        message += "; expected a place for a folder: choose another --run_dir"
    return message


def run(config: flags.Config, given: set[str], stop) -> None:
    """One run of the program, in the mode that the flags ask for."""
    with contextlib.ExitStack() as held:
        folder = Path(config.run_dir)
        refuse(config)  # before the lock makes a file in a folder that is no run's
        locked = folder.exists()
        if locked:
            held.enter_context(files.lock(folder))
            refuse(config)  # another process may have changed it in between
        recorded = checkpoint.read_config(folder)
        past = None
        if recorded:
            past = flags.from_record(recorded["flags"], config.run_dir)
            config = flags.settle(config, given, past)
        elif config.start_from:
            refuse_other_models(config)
        if config.eager:
            tf.config.run_functions_eagerly(True)
        generate = config.mode == "generate"
        job = prepare(config, None if generate else load_data(config, recorded))
        done = restore(job, recorded) if recorded else None
        if generate:
            generate_digits(job)
            return
        if config.mode == "train":
            if not locked:
                held.enter_context(files.lock(folder))
                if checkpoint.read_config(folder):
                    raise ValueError(
                        f"{folder}: another process began a run there meanwhile; "
                        "choose another --run_dir"
                    )
            begin(job, done, recorded, past)
            train(job, stop)
        if not stop.signal:
            report(job)


# --- Setting up -----------------------------------------------------------------------


def refuse(config: flags.Config) -> None:
    """Raise ValueError if what is in the run folder is not what was asked for."""
    folder, training = Path(config.run_dir), config.mode == "train"
    saved = checkpoint.steps_on_disk(folder)
    if not saved and metrics.read(folder / "metrics.jsonl"):
        raise ValueError(
            f"{folder} holds the metrics of a run but none of its checkpoints: put "
            "them back, or choose another --run_dir"
        )
    if not saved and (not training or config.resume == "required"):
        raise ValueError(
            f"{folder}: expected a run to go on from, got no checkpoint; train one "
            f"with python loop.py --run_dir={folder}"
        )
    if saved and training and config.resume == "never":
        raise ValueError(
            f"{folder} already holds a run, of {saved[0]} steps, and --resume=never "
            "does not overwrite it: choose another --run_dir"
        )


def refuse_other_models(config: flags.Config) -> None:
    """Raise ValueError if --start_from is no run of the model of the other flags."""
    folder = Path(config.start_from)
    with naming_the_start(config):
        recorded = checkpoint.read_config(folder)
        if not recorded or not checkpoint.steps_on_disk(folder):
            raise ValueError(
                "expected the folder of a trained run of the same model; train one "
                "there first, with the same "
                + " ".join(f"--{name}" for name in flags.OF_MODEL)
            )
        past = flags.from_record(recorded["flags"], str(folder))
        flags.refuse_others(flags.OF_MODEL, config, past, str(folder))


@contextlib.contextmanager
def naming_the_start(config: flags.Config):
    """Begin the text of an error with --start_from=FOLDER."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"--start_from={config.start_from}: {error}") from error


def prepare(config: flags.Config, data: datasets.Data | None) -> Job:
    """The model, new, and what belongs to it; without `data` it can only generate."""
    to_batch = partial(
        batches.to_batch,
        binarization=config.binarization,
        conditional=config.conditional,
    )
    mean_pixel = batches.mean_pixel(data.train.pixels) if data else 0.5
    model, params = build(config, mean_pixel)
    infer, decode, generate = (
        partial(function, activation=networks.ACTIVATIONS[config.activation])
        for function in (model.infer, model.decode, model.generate)
    )
    state = step.init_state(params, ema=bool(config.ema_decay))
    fix = partial(
        datasets.fix, data, binarization=config.binarization, seed=config.seed
    )
    return Job(
        config=config,
        folder=Path(config.run_dir),
        data=data,
        fixed=cache(fix),
        to_batch=to_batch,
        infer=infer,
        decode=decode,
        generate=generate,
        evaluate=evaluate.make_evaluate(
            infer, state.averaged, to_batch, config.seed, config.latents
        ),
        state=state,
        saver=checkpoint.make_saver(state),
    )


def build(config: flags.Config, mean_pixel: float):
    """(the module of the model that the flags ask for, its new parameters)."""
    shared = dict(
        mean_pixel=mean_pixel,
        classes=mnist.CLASSES if config.conditional else 0,
        filters=config.filters if config.architecture == "conv" else (),
    )
    seed, hidden_sizes = config.seed, config.hidden_sizes
    if config.stochastic_layers == 1:
        return vae, vae.init(seed, hidden_sizes, config.latent_dim, **shared)
    upper = config.latent_dims, config.upper_hidden_sizes
    return hierarchical, hierarchical.init(seed, hidden_sizes, *upper, **shared)


def load_data(config: flags.Config, recorded) -> datasets.Data:
    """The data set that the flags ask for, split.

    Raises:
      ValueError: it cannot be had, is not the run's, or is too small.
    """
    dataset = config.dataset
    if dataset == "auto" and recorded:
        name = recorded["dataset"]["name"]
        dataset = name if name in (*mnist.SOURCES, "synthetic") else dataset
    name, train_set, test_set = datasets.find(dataset, config.data_dir, say)
    images = len(train_set.images)
    if config.validation_size + config.batch_size > images:
        raise ValueError(
            f"expected at most {images} images, the size of the training set, in "
            f"--validation_size={config.validation_size} and one "
            f"--batch_size={config.batch_size} together: give smaller ones"
        )
    steps = config.epochs * ((images - config.validation_size) // config.batch_size)
    if steps > rng.MAX_INDEX:
        raise ValueError(
            f"expected at most {rng.MAX_INDEX:,} steps, each with its own random "
            f"numbers, got {steps:,}: give fewer --epochs"
        )
    most = max(train_set.labels.max(), test_set.labels.max())
    if config.conditional and most >= mnist.CLASSES:
        raise ValueError(
            f"expected labels from 0 to {mnist.CLASSES - 1} for --conditional, got "
            f"{most} in {name}"
        )
    data = datasets.split(name, train_set, test_set, config.validation_size)
    if recorded and data.record["sha256"] != recorded["dataset"]["sha256"]:
        raise ValueError(
            f"{config.run_dir} holds a run on other data "
            f"({recorded['dataset']['name']}, not this {name}): use that data, or "
            "choose another --run_dir"
        )
    return data


def restore(job: Job, recorded: dict) -> int | None:
    """Load the newest whole checkpoint, and say what is not as it was; its step."""
    done, notes = checkpoint.restore(job.saver, job.folder)
    made_with = recorded["versions"]["tensorflow"]
    if made_with != tf.__version__:
        notes.append(
            f"This run was begun with TensorFlow {made_with}: under {tf.__version__} "
            "it goes on, but not in the same bits."
        )
    for note in notes:
        say(note)
    return done


def begin(job: Job, done: int | None, recorded, past) -> None:
    """Make the run's folder ready for the steps after `done`; None begins a run, with
    the weights of --start_from if it is given."""
    folder, steps = job.folder, done or 0
    checkpoint.clean(folder)
    kept = metrics.keep_until(folder / "metrics.jsonl", steps)
    epochs = steps // job.steps_per_epoch
    if kept < epochs:
        say(f"{folder}/metrics.jsonl holds {kept} of the {epochs} epochs' records.")
    elif done and not checkpoint.metrics_are_as_saved(folder, done):
        say(f"{folder}/metrics.jsonl was changed or damaged: its numbers may be wrong.")
    if done is None:
        versions, start = current_versions(), starting_weights(job, recorded)
    else:
        versions, start = recorded["versions"], recorded.get("start", {})
        for change in flags.changes(job.config, past):
            say(f"From here on, {change}.")
    record = {"flags": dataclasses.asdict(job.config), "versions": versions}
    record |= {"dataset": job.data.record, "start": start}
    checkpoint.write_config(folder, record)
    checkpoint.save(job.saver, folder, steps, job.config.keep_checkpoints)


def current_versions() -> dict:
    """Of what the run's bits depend on."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }


def starting_weights(job: Job, recorded) -> dict:
    """Load the weights of --start_from; what config.json keeps of it, {} for nothing.

    A run that was killed before its first checkpoint starts again with the same.
    """
    folder = job.config.start_from
    if not folder:
        return {}
    with naming_the_start(job.config):
        newest, notes = checkpoint.start_from(Path(folder), job.state)
        before = recorded["start"]["start_step"] if recorded else newest
        if newest != before:
            raise ValueError(
                f"this run began with its weights after {before} steps, and its newest "
                f"are now those after {newest}: choose another --run_dir"
            )
    for note in [*notes, f"Weights: those of {folder} after {newest:,} steps"]:
        say(note)
    return {"start_from": folder, "start_step": newest}


# --- Training -------------------------------------------------------------------------


def train(job: Job, stop: process.Stop) -> None:
    """Take the steps that are left; when stopped, save and say how to go on."""
    config, per_epoch = job.config, job.steps_per_epoch
    done, total = int(job.state.step), config.epochs * per_epoch
    say(f"{describe(job)}\n{position(job)}")
    if done >= total:
        say("Nothing is left to train; more --epochs would go on from here.")
        return
    write_scalars = metrics.make_scalar_writer(job.folder)
    stop.deferred = True
    with tqdm.tqdm(  # shown on a terminal alone
        total=total, initial=done, unit="step", desc="compiling", disable=None
    ) as bar:
        for done, values in blocks(job):
            bar.set_description(f"epoch {-(-done // per_epoch)}", refresh=False)
            shown = zip(objective.Losses._fields, values, strict=False)
            bar.set_postfix({k: f"{v:.1f}" for k, v in shown}, refresh=False)
            bar.update(done - bar.n)
            if done % per_epoch == 0:
                record = epoch_record(job, done)
                if not all(map(math.isfinite, record.values())):
                    raise ValueError(blame(job, values, done))
                metrics.append(job.folder / "metrics.jsonl", record)
                write_scalars(done, "epoch", record)
                with bar.external_write_mode():
                    say(reports.epoch_line(record, config.epochs))
                if record["epoch"] % config.checkpoint_every == 0:
                    save(job, values, done)
            if stop.signal:
                break
    save(job, values, done)
    stop.deferred = False
    if stop.signal:
        say(f"Stopped and saved. {position(job)}\nGo on with: {command(job)}")


def blocks(job: Job):
    """Train: after each block of steps, (steps done so far, `MEASURES` of the last).

    Raises:
      ValueError: a loss or a gradient is not finite.
    """
    config, state, per_epoch = job.config, job.state, job.steps_per_epoch
    cost = per_epoch * config.batch_size * config.num_samples
    cost *= CONV_COST if config.architecture == "conv" else 1
    # Equal blocks, as few as keep each to BLOCK_SAMPLES or little more.
    block_steps = math.ceil(per_epoch / math.ceil(cost / BLOCK_SAMPLES))
    train_step = step.make_train_step(
        make_gradients(job),
        partial(learning_rate_at, job),
        beta1=config.beta1,
        beta2=config.beta2,
        epsilon=config.epsilon,
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay,
    )
    train_block = step.make_train_block(state, train_step, job.to_batch, config.xla)
    noise_shape = [config.num_samples, config.batch_size, sum(config.latents)]
    draw_noise = step.make_draw_noise(config.seed, block_steps, noise_shape)
    done, (images, labels) = int(state.step), job.data.train

    def prepare_epoch(epoch):
        pixels = batches.epoch_pixels(images, config.binarization, config.seed, epoch)
        order = batches.epoch_order(config.seed, epoch, len(images), config.batch_size)
        return pixels, labels, order

    # Compile all, so that no epoch's time has it in: a block of no steps, in the middle
    # of an epoch, changes nothing.
    none, noise = tf.constant(0), draw_noise(tf.constant(done))
    train_block(*prepare_epoch(0), noise, tf.constant(1), none)
    process.return_memory()  # the compiler's: 85 MB by default
    for epoch in range(done // per_epoch, config.epochs):
        start = time.perf_counter()
        epoch_data = prepare_epoch(epoch)
        while (first := done - epoch * per_epoch) < per_epoch:
            noise = draw_noise(tf.constant(done))
            count = min(block_steps, per_epoch - first)
            taken, values, squares = train_block(
                *epoch_data, noise, tf.constant(first), tf.constant(count)
            )
            done += int(taken)
            if not np.all(np.isfinite(values)):
                raise ValueError(blame(job, values, done, squares.numpy()))
            seconds = time.perf_counter() - start
            state.seconds.assign(seconds + (state.seconds if first else 0.0))
            yield done, values.numpy()
            start = time.perf_counter()
        del epoch_data  # before the next is drawn: it is a third of the memory


def learning_rate_at(job: Job, at):
    """The rate for step number `at` (from 0) of the run."""
    config = job.config
    return adam.learning_rate_at(
        at,
        config.learning_rate,
        config.learning_rate_schedule,
        config.epochs * job.steps_per_epoch,
    )


def make_gradients(job: Job):
    """gradients(params, x, noise, y, at step) -> `Losses`, gradients."""
    config = job.config
    warmup_steps = config.warmup_epochs * job.steps_per_epoch

    def gradients(params, x, noise, y, at):
        settings = dict(
            objective=config.objective,
            estimator=config.estimator,
            kl_weight=objective.kl_weight_at(at, config.beta, warmup_steps),
            free_bits=config.free_bits,
        )
        return step.loss_and_gradients(job.infer, params, x, noise, y, **settings)

    return gradients


def save(job: Job, values, done: int) -> None:
    """A checkpoint; ValueError if a weight's square is not finite."""
    half_squares = map(tf.nn.l2_loss, tf.nest.flatten(job.state.params))
    if not np.all(np.isfinite(list(half_squares))):
        raise ValueError(blame(job, values, done))
    checkpoint.save(job.saver, job.folder, done, job.config.keep_checkpoints)


def blame(job: Job, values, done: int, squares=()) -> str:
    """What was not finite in step number `done`, and how to go on.

    `squares` are the squared norms of the gradients, if one of them is to blame.
    """
    what = "every gradient is finite, but the weights are ruined"
    named = networks.named_variables(job.state.params)
    for (name, _), square in zip(named, squares, strict=False):
        if not math.isfinite(square):
            what = f"the first variable whose gradient is not finite: {name}"
            break
    rate = float(learning_rate_at(job, done - 1))
    lower = job.config.learning_rate / 10
    saved, _ = checkpoint.newest(job.folder)
    return (
        f"the loss is {values[0]:g} at step {done}, epoch "
        f"{-(-done // job.steps_per_epoch)}, learning rate {rate:g}; {what}. The "
        f"checkpoint of step {saved} is kept; go on from it with: "
        + command(job, f"--learning_rate={lower:g}")
    )


def command(job: Job, *more: str) -> str:
    """The command line that goes on with this run; of a flag given twice, the last."""
    again = ["--resume=auto"] if job.config.resume == "never" else []
    changed = tuple(flag.split("=")[0] + "=" for flag in more)
    kept = [flag for flag in sys.argv if not flag.startswith(changed)]
    return shlex.join([sys.executable, *kept, *again, *more])


def epoch_record(job: Job, done: int) -> dict:
    """The flat record of the epoch that ended with step number `done`.

    `train_loss` is what was minimized; `validation_loss` is -ELBO under any objective.
    """
    means = (job.state.totals / job.steps_per_epoch).numpy().tolist()
    loss, distortion, rate, gradient_norm = means
    record = {
        "epoch": done // job.steps_per_epoch,
        "step": done,
        "seconds": float(job.state.seconds),
        "train_loss": loss,
        "train_distortion": distortion,
        "train_rate": rate,
    }
    if len(job.data.validation.pixels):
        held_out = job.evaluate(*job.fixed("validation"), datasets.INDEX["validation"])
        record |= {
            "validation_loss": held_out.negative_elbo,
            "validation_distortion": held_out.distortion,
            "validation_rate": held_out.rate,
        }
    learning_rate = float(learning_rate_at(job, done - 1))
    return record | {"learning_rate": learning_rate, "gradient_norm": gradient_norm}


# --- Saying ---------------------------------------------------------------------------


def describe(job: Job) -> str:
    """What is trained on what, in two lines."""
    config, data = job.config, job.data.record
    sizes = [networks.PIXELS, *config.hidden_sizes, config.latents[0]]
    if config.architecture == "conv":
        sizes[1:-1] = [f"conv{filters}" for filters in config.filters]
    if config.stochastic_layers == 2:
        sizes += [*config.upper_hidden_sizes, config.latents[1]]
    labels = ", given the labels" if config.conditional else ""
    special = [
        f"--{name}={getattr(config, name)}"
        for name in flags.OF_LOSS
        if getattr(config, name) != flags.FIELDS[name].default
    ]
    return (
        f"Data: {data['name']}, {data['train_images']:,} training, "
        f"{data['validation_images']:,} validation, {data['test_images']:,} test "
        f"images; binarization: {config.binarization}\n"
        f"Model: {'-'.join(map(str, [*sizes, *sizes[-2::-1]]))}, {config.activation}"
        f"{labels}; {reports.loss_terms(special, config.binarization)}"
    )


def position(job: Job) -> str:
    """Where the run is."""
    epoch, extra = divmod(int(job.state.step), job.steps_per_epoch)
    steps = f" and {extra} of {job.steps_per_epoch} steps" if extra else ""
    return f"Run: {job.folder}, at epoch {epoch}{steps} of {job.config.epochs}"


def curves(job: Job) -> list[str]:
    """The fields of metrics.jsonl that the report and the figures need."""
    kinds = ["train", "validation"] if len(job.data.validation.pixels) else ["train"]
    parts = [f"{kind}_{part}" for kind in kinds for part in objective.Losses._fields]
    return ["epoch", "step", "seconds", *parts]


# --- Evaluating -----------------------------------------------------------------------


def report(job: Job) -> None:
    """Held-out numbers into evaluations.jsonl and onto the screen, and the figures."""
    config, kind = job.config, job.config.evaluation_split
    pixels, labels = job.fixed(kind)
    count = config.evaluation_images or len(pixels)
    split = datasets.Split(pixels[:count], labels[:count])
    record, z_mean = evaluation_record(job, split)
    metrics.append(job.folder / "evaluations.jsonl", record)
    metrics.make_scalar_writer(job.folder)(record["step"], kind, record)
    history = [
        epoch
        for epoch in metrics.read(job.folder / "metrics.jsonl", curves(job))
        if epoch["step"] <= record["step"]  # a killed run may have got further
    ]
    if config.figures:
        # After training they are the run's figures, even if of some images alone.
        whole = kind == "test" and len(split.pixels) == len(pixels)
        part = "" if whole or config.mode == "train" else f"{kind}_{len(split.pixels)}"
        draw_figures(job, split, z_mean, history, job.folder / "figures" / part)
    built_in = record["dataset"] == "synthetic" and not config.data_dir
    about = " (built-in digits, not MNIST)" if built_in else ""
    seconds = sum(epoch["seconds"] for epoch in history)
    say(reports.summary(record, len(pixels), config.latents, about, seconds))
    say(f"All is in     {job.folder}/")


def evaluation_record(job: Job, split: datasets.Split):
    """(the flat record of an evaluation on `split`, its posterior means [N, D])."""
    config, start = job.config, time.perf_counter()
    result = job.evaluate(*split, datasets.INDEX[config.evaluation_split])
    done = int(job.state.step)
    one_or_all = (lambda layers: layers[0]) if len(config.latents) == 1 else list
    negative_elbo = "loss" if config.binarization == "none" else "negative_elbo"
    record = {
        "split": config.evaluation_split,
        "epoch": done // job.steps_per_epoch,
        "step": done,
        "dataset": job.data.record["name"],
        "binarization": config.binarization,
        "seed": config.seed,
        "given_labels": config.conditional,
        "images": len(split.pixels),
        negative_elbo: result.negative_elbo,
        "distortion": result.distortion,
        "rate": result.rate,
        "active_units": one_or_all(result.active_units),
        "kl_per_dim": one_or_all([kl.tolist() for kl in result.kl_per_dim]),
        **probe(job, result.z_mean, split.labels.numpy()),
    }
    record |= checkpoint.read_config(job.folder).get("start", {})
    if config.importance_samples:
        record |= likelihood(job, split)
    return record | {"seconds": time.perf_counter() - start}, result.z_mean


def probe(job: Job, z_mean, labels) -> dict:
    """What the posterior means tell of the labels, from training to held-out images."""
    config = job.config
    # Not `job.fixed`, which would keep it: it is large.
    train = datasets.fix(job.data, "train", config.binarization, config.seed)
    encode = evaluate.make_encode(
        job.infer, job.state.averaged, job.to_batch, config.latents
    )
    known = encode(*train), train.labels.numpy()
    return {
        "knn_accuracy": probes.nearest_neighbors_accuracy(*known, z_mean, labels),
        "linear_accuracy": probes.linear_accuracy(*known, z_mean, labels),
    }


def likelihood(job: Job, split: datasets.Split) -> dict:
    """-log p(x) by importance sampling, and its standard error over images."""
    config = job.config
    model = job.infer, job.state.averaged, job.to_batch
    log_marginal = evaluate.make_log_marginal(
        *model, config.seed, config.latents, config.xla, config.bfloat16
    )
    with tqdm.tqdm(
        total=len(split.pixels), unit="image", desc="-log p(x)", disable=None
    ) as bar:
        log_p = log_marginal(
            *split,
            datasets.INDEX[config.evaluation_split],
            config.importance_samples,
            bar.update,
        )
    count = len(log_p)
    error = float(np.std(log_p, ddof=1) / math.sqrt(count)) if count > 1 else None
    return {
        "nll": -float(np.mean(log_p)),
        "nll_standard_error": error,
        "importance_samples": config.importance_samples,
        "bfloat16": config.bfloat16,
    }


# --- Showing --------------------------------------------------------------------------


def pixel_means(logits) -> np.ndarray:
    """E[x|z] of logits [N, 784], as images [N, 28, 28] in [0, 1]."""
    return tf.sigmoid(logits).numpy().reshape(-1, mnist.SIDE, mnist.SIDE)


def prior_samples(job: Job, index: int, labels, styles=None) -> np.ndarray:
    """Pixel means [N, 28, 28] of draws from the prior, with labels [N] for a
    conditional model; those with equal `styles` [N] (by default all differ) share z."""
    key = rng.key(job.config.seed, rng.Stream.SAMPLE, index)
    noise = rng.normal(key, [len(labels), sum(job.config.latents)])
    noise = noise if styles is None else tf.gather(noise, styles)
    parts = []
    for i in range(0, len(labels), 1000):  # for the memory
        y = batches.one_hot(labels[i : i + 1000], job.config.conditional)
        logits = job.generate(job.state.averaged, noise[i : i + 1000], y=y)
        parts.append(pixel_means(logits))
    return np.concatenate(parts)


def draw_figures(
    job: Job, split: datasets.Split, z_mean, history: list[dict], folder: Path
) -> None:
    """All figures of the run; `z_mean` [N, D] are the split's posterior means."""
    conditional, side = job.config.conditional, mnist.SIDE

    def decode(z, labels):
        y = batches.one_hot(labels, conditional)
        z = tf.constant(z, tf.float32)
        return pixel_means(job.decode(job.state.averaged, z, y=y))

    def images(rows):
        part = (tf.gather(tensor, rows) for tensor in split)
        return job.to_batch(*part)[0].numpy().reshape(-1, side, side)

    kind = job.config.evaluation_split
    figures.of_images(folder, kind, images, split.labels.numpy(), z_mean, decode)
    rows, columns = np.divmod(np.arange(100), 10)
    samples = prior_samples(job, 0, columns, rows if conditional else None)
    title = "Pixel means of samples from the prior"
    title += ": one z a row, one class a column" if conditional else ""
    samples = samples.reshape(10, 10, side, side)
    figures.image_rows(folder / "samples.png", title, samples)
    if job.config.latents == (2,):
        grid = figures.manifold_grid()
        for label in range(mnist.CLASSES) if conditional else [0]:
            name = f"manifold_{label}.png" if conditional else "manifold.png"
            figures.manifold(folder / name, decode(grid, np.full(len(grid), label)))
    if history:
        path = folder / "learning_curves.png"
        figures.learning_curves(path, history, reports.unit(job.config.binarization))


def generate_digits(job: Job) -> None:
    """--num_images digits from the prior, as a picture and as an array."""
    config, count, digit = job.config, job.config.num_images, job.config.digit
    labels = np.full(count, digit) if digit >= 0 else np.arange(count) % mnist.CLASSES
    digits = prior_samples(job, 1, labels)
    kind = f"_digit{digit}" if digit >= 0 else ""
    name = f"generated_{count}{kind}_seed{config.seed}_step{int(job.state.step)}"
    path = job.folder / "figures" / name
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".npy.partial")
    with open(partial, "wb") as file:
        np.save(file, digits)
    os.replace(partial, path.with_suffix(".npy"))
    shown = digits[:PICTURED]
    given = f", given {digit}" if digit >= 0 else ""
    columns = math.ceil(math.sqrt(len(shown)))
    columns = mnist.CLASSES if config.conditional else columns
    figures.image_rows(
        path.with_suffix(".png"),
        f"Pixel means of {len(shown)} samples from the prior{given}",
        [shown[i : i + columns] for i in range(0, len(shown), columns)],
    )
    some = f" of the first {PICTURED}" if count > PICTURED else ""
    say(f"{count} digits: float32 [{count}, 28, 28] in {path}.npy")
    say(f"Picture{some}: {path}.png")


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: argv)
