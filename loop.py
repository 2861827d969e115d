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
from functools import partial
from pathlib import Path
from typing import NamedTuple

from absl import app, logging

import flags

if __name__ == "__main__":
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed, as by some schedulers
            setattr(sys, stream, open(os.devnull, "w"))
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # until `Stop` there is nothing to save
    app.define_help_flags()
    flags.parse(sys.argv)  # before TensorFlow's slow import: a typo shows at once


@contextlib.contextmanager
def _stderr_off():
    """TensorFlow writes about missing GPUs while it is imported, whatever one asks."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _stderr_off():
    import numpy as np
    import tensorflow as tf
    import tqdm

    from core import (
        adam,
        batches,
        checkpoint,
        evaluate,
        figures,
        metrics,
        mnist,
        networks,
        rng,
        step,
        synthetic,
        vae,
    )

BLOCK_IMAGES = 12_800  # in one compiled call: a second or less, then a stop is seen
# What a disk answers that cannot be written; TensorFlow's words for it have no number.
NO_ROOM = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
VALIDATION, TEST = 0, 1  # indices of the EVALUATE stream


class Data(NamedTuple):
    """The images as the run uses them."""

    record: dict  # name, sha256 and sizes, as config.json keeps them
    train_images: tf.Tensor  # uint8 [N, 784]
    validation_pixels: tf.Tensor  # uint8 [V, 784], binarized; V may be 0
    test_pixels: tf.Tensor  # uint8 [T, 784], binarized
    test_labels: np.ndarray  # [T]


class Run(NamedTuple):
    """Everything that training, evaluating and drawing need."""

    config: flags.Config
    folder: Path
    data: Data
    to_float: Callable  # uint8 pixels -> x
    infer: Callable  # (params, x, noise) -> Inference
    generate: Callable  # (params, z) -> logits
    evaluate: Callable  # (pixels, index) -> Evaluation
    learning_rate_at: Callable  # step -> learning rate
    state: step.TrainState
    manager: tf.train.CheckpointManager

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.train_images) // self.config.batch_size


class Interrupted(BaseException):
    """A signal asked the program to stop."""


class Stop:
    """The first SIGINT or SIGTERM: noted in training, which saves; else obeyed at once.

    The second ends the program wherever it is.
    """

    signal = 0
    noted = False

    def __init__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, number, frame):
        for either in (signal.SIGINT, signal.SIGTERM):
            signal.signal(either, signal.SIG_DFL)
        self.signal = number
        if not self.noted:
            raise Interrupted


def main(argv) -> int:
    """Exit code 0; 1 for what a user can mend, in one line; 128 + signal if stopped."""
    del argv
    logging.set_verbosity(logging.ERROR)  # TensorFlow narrates its checkpoints
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a path in a narrow locale
    stop = Stop()
    try:
        run(flags.config(), flags.given(), stop)
    except Interrupted:
        say("Stopped; what was saved is there, and the same command goes on from it.")
    except (ValueError, OSError, tf.errors.OpError) as error:
        message = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            message += (
                "; what was saved before is intact: make room, or choose a --run_dir "
                "that can be written, and run the same command again"
            )
        print(f"error: {message}", file=sys.stderr)
        return 1
    finally:  # all is written: a signal while Python shuts down changes nothing
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return 128 + stop.signal if stop.signal else 0


def run(config: flags.Config, given: set[str], stop) -> None:
    """One run of the program, in the mode that the flags ask for."""
    if config.eager:
        tf.config.run_functions_eagerly(True)
    with contextlib.ExitStack() as held:
        folder = Path(config.run_dir)
        if folder.exists():
            held.enter_context(checkpoint.lock(folder))
        recorded = checkpoint.read_config(folder)
        refuse(config, recorded)
        past = None
        if recorded:
            past = flags.from_record(recorded["flags"], config.run_dir)
            config = flags.settle(config, given, past)
        if config.mode == "generate":
            job = prepare(config, None)
            restore(job, recorded)
            generate_digits(job)
            return
        job = prepare(config, load_data(config, recorded))
        done = restore(job, recorded) if recorded else None
        if config.mode == "train":
            begin(job, done, recorded, past, held)
            train(job, stop)
        if not stop.signal:
            report(job)


def say(text: str) -> None:
    """Print a line; training goes on when nobody reads (`| head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- Setting up -----------------------------------------------------------------------


def refuse(config: flags.Config, recorded) -> None:
    """Raise ValueError if what is in the run folder is not what was asked for."""
    folder, training = Path(config.run_dir), config.mode == "train"
    saved = checkpoint.saved_steps(folder)
    if not saved and (not training or config.resume == "required"):
        raise ValueError(
            f"{folder}: expected a run to go on from, got no checkpoint; train one "
            f"with python loop.py --run_dir={folder}"
        )
    if not saved and metrics.read(folder / "metrics.jsonl"):
        raise ValueError(
            f"{folder} holds the metrics of a run but none of its checkpoints: put "
            "them back, or choose another --run_dir"
        )
    if saved and training and config.resume == "never":
        raise ValueError(
            f"{folder} already holds a run, of {saved[0]} steps, and --resume=never "
            "does not overwrite it: choose another --run_dir"
        )


def prepare(config: flags.Config, data: Data | None) -> Run:
    """The model, new, and what belongs to it; without `data` it can only generate."""
    to_float = partial(batches.to_float, binarization=config.binarization)
    activation = vae.ACTIVATIONS[config.activation]
    infer = partial(vae.infer, activation=activation)
    mean_pixel = batches.mean_pixel(data.train_images) if data else 0.5
    params = vae.init(config.seed, config.hidden_sizes, config.latent_dim, mean_pixel)
    state = step.init_state(params)
    job = Run(
        config=config,
        folder=Path(config.run_dir),
        data=data,
        to_float=to_float,
        infer=infer,
        generate=partial(vae.generate, activation=activation),
        evaluate=evaluate.make_evaluate(
            infer, params, to_float, config.seed, config.latent_dim
        ),
        learning_rate_at=None,
        state=state,
        manager=checkpoint.make_manager(state, Path(config.run_dir)),
    )
    if not data:
        return job
    learning_rate_at = partial(
        adam.learning_rate_at,
        learning_rate=config.learning_rate,
        schedule=config.learning_rate_schedule,
        total_steps=config.epochs * job.steps_per_epoch,
    )
    return job._replace(learning_rate_at=learning_rate_at)


def load_data(config: flags.Config, recorded) -> Data:
    """The data set that the flags ask for, split and held out.

    Raises:
      ValueError: it cannot be had, is not the run's, or is too small.
    """
    name, train_set, test_set = load_digits(config, recorded)
    sha256 = mnist.checksum(train_set, test_set)
    if recorded and sha256 != recorded["dataset"]["sha256"]:
        raise ValueError(
            f"{config.run_dir} holds a run on other data "
            f"({recorded['dataset']['name']}, not this {name}): use that data, or "
            "choose another --run_dir"
        )
    images = len(train_set.images)
    if config.validation_size + config.batch_size > images:
        raise ValueError(
            f"expected at most {images} images, the size of the training set, in "
            f"--validation_size={config.validation_size} and one "
            f"--batch_size={config.batch_size} together"
        )
    train_set, validation_set = batches.split(train_set, config.validation_size)
    held_out = partial(
        batches.held_out_pixels, binarization=config.binarization, seed=config.seed
    )
    return Data(
        record={
            "name": name,
            "sha256": sha256,
            "train_images": len(train_set.images),
            "validation_images": len(validation_set.images),
            "test_images": len(test_set.images),
        },
        train_images=batches.flatten(train_set.images),
        validation_pixels=held_out(batches.flatten(validation_set.images), VALIDATION),
        test_pixels=held_out(batches.flatten(test_set.images), TEST),
        test_labels=test_set.labels,
    )


def load_digits(config: flags.Config, recorded):
    """(name, training set, test set) of what --data_dir or --dataset asks for."""
    if config.data_dir:
        return Path(config.data_dir).resolve().name, *mnist.load(config.data_dir)
    dataset = config.dataset
    if dataset == "auto" and recorded:
        name = recorded["dataset"]["name"]
        dataset = name if name in (*mnist.SOURCES, "synthetic") else dataset
    if dataset != "synthetic":
        name = "mnist" if dataset == "auto" else dataset
        try:
            return name, *mnist.load(mnist.fetch(name, mnist.cache_folder()))
        except ValueError as error:
            if dataset != "auto":
                raise ValueError(
                    f"{error}; put the four IDX files into a folder and name it with "
                    "--data_dir=DIR, or use the built-in digits: --dataset=synthetic"
                ) from error
            say(f"No MNIST: {error}. Using the built-in synthetic digits instead.")
    return "synthetic", *synthetic.draw()


def restore(job: Run, recorded: dict) -> int | None:
    """Load the newest whole checkpoint, and say what is not as it was; its step."""
    done, notes = checkpoint.restore(job.manager)
    made_with = recorded["versions"]["tensorflow"]
    if made_with != tf.__version__:
        notes.append(
            f"This run was begun with TensorFlow {made_with}: under {tf.__version__} "
            "it goes on, but not in the same bits."
        )
    for note in notes:
        say(note)
    return done


def begin(job: Run, done: int | None, recorded, past, held) -> None:
    """Make the run's folder ready for the steps after `done`; None begins a run."""
    folder = job.folder
    versions = {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
    if not folder.exists():
        folder.mkdir(parents=True)
        held.enter_context(checkpoint.lock(folder))
    checkpoint.clean(folder)
    kept = metrics.keep_until(folder / "metrics.jsonl", done or 0)
    epochs = (done or 0) // job.steps_per_epoch
    if kept < epochs:
        say(f"{folder}/metrics.jsonl holds {kept} of the {epochs} epochs' records.")
    elif done and not checkpoint.metrics_are_as_saved(folder, done):
        say(f"{folder}/metrics.jsonl was changed or damaged: its numbers may be wrong.")
    if done is not None:
        versions = recorded["versions"]
        for change in flags.changes(job.config, past):
            say(f"From here on, {change}.")
    record = {"flags": dataclasses.asdict(job.config), "versions": versions}
    checkpoint.write_config(folder, record | {"dataset": job.data.record})
    checkpoint.save(job.manager, done or 0, job.config.keep_checkpoints)


# --- Training -------------------------------------------------------------------------


def train(job: Run, stop: Stop) -> None:
    """Take the steps that are left; when stopped, save and say how to go on."""
    config, per_epoch = job.config, job.steps_per_epoch
    done, total = int(job.state.step), config.epochs * per_epoch
    say(f"{describe(job)}\n{position(job)}")
    if done >= total:
        say("Nothing is left to train; more --epochs would go on from here.")
        return
    write_scalars = metrics.make_scalar_writer(job.folder)
    terminal = sys.stderr.isatty()
    stop.noted = True
    with tqdm.tqdm(
        total=total, initial=done, unit="step", desc="compiling", disable=not terminal
    ) as bar:
        for done, values in blocks(job):
            bar.set_description(f"epoch {-(-done // per_epoch)}", refresh=False)
            shown = dict(zip(step.TOTALS[:3], values, strict=False))
            bar.set_postfix({k: f"{v:.1f}" for k, v in shown.items()}, refresh=False)
            bar.update(done - bar.n)
            if done % per_epoch == 0:
                record = epoch_record(job, done)
                if not all(map(math.isfinite, record.values())):
                    raise ValueError(blame(job, values, done))
                metrics.append(job.folder / "metrics.jsonl", record)
                write_scalars(done, "epoch", record)
                with bar.external_write_mode():
                    say(epoch_line(record, config.epochs))
                if record["epoch"] % config.checkpoint_every == 0:
                    save(job, values, done)
            if stop.signal:
                break
    save(job, values, done)
    stop.noted = False
    if stop.signal:
        say(f"Stopped and saved. {position(job)}\nGo on with: {command()}")


def blocks(job: Run):
    """Train: after each block of steps, (steps done so far, its last `TOTALS`).

    Raises:
      ValueError: a loss or a gradient is not finite.
    """
    config, state, per_epoch = job.config, job.state, job.steps_per_epoch
    block_steps = math.ceil(
        per_epoch / math.ceil(per_epoch * config.batch_size / BLOCK_IMAGES)
    )
    train_step = step.make_train_step(
        *(job.infer, job.learning_rate_at),
        *(config.beta1, config.beta2, config.epsilon, config.clip_norm),
    )
    jit = config.jit and not config.eager
    train_block = step.make_train_block(state, train_step, job.to_float, jit)
    noise_shape = [1, config.batch_size, config.latent_dim]
    draw_noise = step.make_draw_noise(config.seed, block_steps, noise_shape)
    done = int(state.step)
    compiled = False
    for epoch in range(done // per_epoch, config.epochs):
        start = time.perf_counter()
        pixels = batches.epoch_pixels(
            job.data.train_images, config.binarization, config.seed, epoch
        )
        order = batches.epoch_order(config.seed, epoch, len(pixels), config.batch_size)
        while (first := done - epoch * per_epoch) < per_epoch:
            noise, at = draw_noise(tf.constant(done)), tf.constant(first)
            if not compiled:  # a block of no steps, so that no epoch's time has it in
                train_block(pixels, order, noise, at, tf.constant(0))
                compiled, start = True, time.perf_counter()
            count = min(block_steps, per_epoch - first)
            taken, values, squares = train_block(
                pixels, order, noise, at, tf.constant(count)
            )
            done += int(taken)
            if not np.all(np.isfinite(values)):
                raise ValueError(blame(job, values, done, squares.numpy()))
            seconds = time.perf_counter() - start
            state.seconds.assign(seconds + (state.seconds if first else 0.0))
            yield done, values.numpy()
            start = time.perf_counter()


def save(job: Run, values, done: int) -> None:
    """A checkpoint; ValueError if a weight's square is not finite."""
    squares = adam.squared_norms(tf.nest.flatten(job.state.params))
    if not np.all(np.isfinite(squares)):
        raise ValueError(blame(job, values, done))
    checkpoint.save(job.manager, done, job.config.keep_checkpoints)


def blame(job: Run, values, done: int, squares=()) -> str:
    """What was not finite in step number `done`, and how to go on.

    `squares` are the squared norms of the gradients, if one of them is to blame.
    """
    names = [name for name, _ in networks.named_variables(job.state.params)]
    bad = [
        n
        for n, square in zip(names, squares, strict=False)
        if not math.isfinite(square)
    ]
    what = (
        f"the first variable whose gradient is not finite: {bad[0]}"
        if bad
        else ("every gradient is finite, but the weights are ruined")
    )
    rate = float(job.learning_rate_at(done - 1))
    saved = checkpoint.saved_steps(job.folder)[0]
    return (
        f"the loss is {values[0]:g} at step {done}, epoch "
        f"{-(-done // job.steps_per_epoch)}, learning rate {rate:g}; {what}. The "
        f"checkpoint of step {saved} is kept; go on from it with: "
        + command(f"--learning_rate={rate / 10:g}")
    )


def command(*more: str) -> str:
    """The command line that goes on with this run."""
    again = [word for word in sys.argv if not word.lstrip("-").startswith("resume")]
    return shlex.join([sys.executable, *again, *more])


def epoch_record(job: Run, done: int) -> dict:
    """The flat record of the epoch that ended with step number `done`."""
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
    if len(job.data.validation_pixels):
        held_out = job.evaluate(job.data.validation_pixels, VALIDATION)
        record |= {
            "validation_loss": held_out.negative_elbo,
            "validation_distortion": held_out.distortion,
            "validation_rate": held_out.rate,
        }
    learning_rate = float(job.learning_rate_at(done - 1))
    return record | {"learning_rate": learning_rate, "gradient_norm": gradient_norm}


# --- Saying ---------------------------------------------------------------------------


def epoch_line(record: dict, epochs: int) -> str:
    """An epoch's record for people: each loss = distortion + rate."""
    line = f"epoch {record['epoch']}/{epochs}"
    for kind in ("train", "validation"):
        if f"{kind}_loss" in record:
            line += (
                f"  {kind} {record[f'{kind}_loss']:.2f} = "
                f"{record[f'{kind}_distortion']:.2f} + {record[f'{kind}_rate']:.2f}"
            )
    return f"{line}  {record['seconds']:.2f} s"


def unit(config: flags.Config) -> str:
    """What the loss is measured in, said wherever it is shown."""
    if config.binarization == "none":
        return "grey-pixel loss an image, not an ELBO"
    return "nats an image"


def describe(job: Run) -> str:
    """What is trained on what, in two lines."""
    config, data = job.config, job.data.record
    hidden = [str(n) for n in config.hidden_sizes]
    sizes = "-".join(["784", *hidden, str(config.latent_dim), *hidden[::-1], "784"])
    return (
        f"Data: {data['name']}, {data['train_images']:,} training, "
        f"{data['validation_images']:,} validation, {data['test_images']:,} test "
        f"images; binarization: {config.binarization}\n"
        f"Model: {sizes}, {config.activation}; loss = distortion + rate, {unit(config)}"
    )


def position(job: Run) -> str:
    """Where the run is."""
    epoch, extra = divmod(int(job.state.step), job.steps_per_epoch)
    steps = f" and {extra} of {job.steps_per_epoch} steps" if extra else ""
    return f"Run: {job.folder}, at epoch {epoch}{steps} of {job.config.epochs}"


def curves(job: Run) -> list[str]:
    """The fields of metrics.jsonl that the report and the figures need."""
    kinds = ["train", "validation"] if len(job.data.validation_pixels) else ["train"]
    parts = [f"{kind}_{part}" for kind in kinds for part in step.TOTALS[:3]]
    return ["epoch", "step", "seconds", *parts]


def report(job: Run) -> None:
    """Test numbers into evaluations.jsonl and onto the screen, and the figures."""
    start = time.perf_counter()
    result = job.evaluate(job.data.test_pixels, TEST)
    done = int(job.state.step)
    record = {
        "split": "test",
        "epoch": done // job.steps_per_epoch,
        "step": done,
        "dataset": job.data.record["name"],
        "binarization": job.config.binarization,
        "images": len(job.data.test_pixels),
        "negative_elbo": result.negative_elbo,
        "distortion": result.distortion,
        "rate": result.rate,
        "active_units": result.active_units,
        "seconds": time.perf_counter() - start,
    }
    metrics.append(job.folder / "evaluations.jsonl", record)
    metrics.make_scalar_writer(job.folder)(done, "test", record)
    history = metrics.read(job.folder / "metrics.jsonl", curves(job))
    if job.config.figures:
        draw_figures(job, result.z_mean, history)
    grey = job.config.binarization == "none"
    seconds = sum(epoch["seconds"] for epoch in history)
    name, asked = record["dataset"], job.config
    if name == "synthetic" and asked.dataset == "auto" and not asked.data_dir:
        name += " (built in, because MNIST could not be had)"
    say(
        f"Data set      {name}, {record['images']:,} test images\n"
        f"Test {'loss ' if grey else '-ELBO'}    {record['negative_elbo']:.2f} "
        f"{unit(job.config)}\n"
        f"  distortion  {record['distortion']:.2f}\n"
        f"  rate        {record['rate']:.2f}\n"
        f"Active units  {record['active_units']} of {job.config.latent_dim}\n"
        f"Trained       {record['epoch']} epochs, {done:,} steps, {seconds:.1f} s\n"
        f"All is in     {job.folder}/"
    )


# --- Showing --------------------------------------------------------------------------


def pixel_means(job: Run, z) -> np.ndarray:
    """E[x|z] for z [N, D], as images [N, 28, 28] in [0, 1]."""
    logits = job.generate(job.state.params, tf.constant(z, tf.float32))
    return tf.sigmoid(logits).numpy().reshape(-1, mnist.SIDE, mnist.SIDE)


def prior_samples(job: Run, index: int, count: int) -> np.ndarray:
    """Pixel means of `count` draws of z from the prior."""
    key = rng.key(job.config.seed, rng.Stream.SAMPLE, index)
    return pixel_means(job, rng.normal(key, [count, job.config.latent_dim]))


def draw_figures(job: Run, z_mean: np.ndarray, history: list[dict]) -> None:
    """All figures of the run; `z_mean` [T, D] are the test images' posterior means."""
    folder, labels = job.folder / "figures", job.data.test_labels
    x = job.to_float(job.data.test_pixels).numpy().reshape(-1, mnist.SIDE, mnist.SIDE)
    figures.latent_space(folder / "latent_space.png", z_mean, labels)
    if job.config.latent_dim == 2:
        grid = pixel_means(job, figures.manifold_grid())
        figures.manifold(folder / "manifold.png", grid)
    rows = np.array_split(np.arange(min(36, len(x))), 3)
    figures.image_rows(
        folder / "reconstructions.png",
        "Test images, and their reconstructions from the posterior mean",
        [f for row in rows for f in (x[row], pixel_means(job, z_mean[row]))],
        ["image", "reconstruction"] * 3,
    )
    figures.image_rows(
        folder / "samples.png",
        "Pixel means of samples from the prior",
        prior_samples(job, 0, 100).reshape(10, 10, mnist.SIDE, mnist.SIDE),
    )
    classes = np.unique(labels)[:10]
    first_of = [int(np.argmax(labels == label)) for label in classes]
    pairs = list(zip(first_of, np.roll(first_of, -1), strict=True))
    figures.image_rows(
        folder / "interpolations.png",
        "From one test image to another, along the line between their posterior means",
        [
            [x[a], *pixel_means(job, np.linspace(z_mean[a], z_mean[b], 10)), x[b]]
            for a, b in pairs
        ],
        [f"{labels[a]} to {labels[b]}" for a, b in pairs],
    )
    if history:
        path = folder / "learning_curves.png"
        figures.learning_curves(path, history, unit(job.config))


def generate_digits(job: Run) -> None:
    """--num_images digits from the prior, as a picture and as an array."""
    count, seed = job.config.num_images, job.config.seed
    digits = prior_samples(job, 1, count)
    name = f"generated_{count}_seed{seed}_step{int(job.state.step)}"
    path = job.folder / "figures" / name
    columns = math.ceil(math.sqrt(count))
    figures.image_rows(
        path.with_suffix(".png"),
        f"Pixel means of {count} samples from the prior",
        [digits[i : i + columns] for i in range(0, count, columns)],
    )
    np.save(path.with_suffix(".npy"), digits)
    say(f"{count} digits: {path}.png, and float32 [{count}, 28, 28] in {path}.npy")


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: argv)
