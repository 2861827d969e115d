"""Train a variational autoencoder, step by step: `python loop.py --epochs=30`.

Read `run` first, then `train`. This is the only module that knows all the others.
"""

import contextlib
import dataclasses
import math
import os
import platform
import shlex
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from absl import app, logging

import flags

if __name__ == "__main__":
    flags.parse(sys.argv)  # before TensorFlow's slow import: a typo shows at once


@contextlib.contextmanager
def _stderr_off():
    """TensorFlow writes about missing GPUs while it is imported, whatever one asks."""
    sys.stderr.flush()
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
VALIDATION, TEST = 0, 1  # indices of the EVALUATE stream
SAMPLES, PAIRS = 100, 10  # in the figures


class Run(NamedTuple):
    """Everything that training, evaluating and drawing need."""

    config: flags.Config
    folder: Path
    dataset: dict  # name, sha256 and sizes, as config.json records them
    train_images: tf.Tensor  # uint8 [N, 784]
    validation_pixels: tf.Tensor  # uint8 [V, 784], binarized; V may be 0
    test_pixels: tf.Tensor  # uint8 [T, 784], binarized
    test_labels: np.ndarray  # [T]
    to_float: callable  # uint8 pixels -> x
    infer: callable  # (params, x, noise) -> Inference
    generate: callable  # (params, z) -> logits
    evaluate: callable  # (pixels, index) -> Evaluation
    state: step.TrainState
    manager: tf.train.CheckpointManager

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_images) // self.config.batch_size


class Stop:
    """Set by the first SIGINT or SIGTERM; the second ends the program at once."""

    signal = 0

    def __init__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, number, frame):
        signal.signal(number, signal.SIG_DFL)
        self.signal = number


def main(argv) -> int:
    """Exit code 0; 1 for what a user can mend, in one line; 128 + signal if stopped."""
    del argv
    logging.set_verbosity(logging.ERROR)  # TensorFlow narrates its checkpoints
    try:
        return run(flags.config(), flags.given(), Stop())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(config: flags.Config, given: set[str], stop: Stop) -> int:
    """One program run, in the mode that the flags ask for; the exit code."""
    if config.eager:
        tf.config.run_functions_eagerly(True)
    job = prepare(config, given)
    if config.mode == "generate":
        generate_digits(job, config.seed)
        return 0
    if config.mode == "train":
        train(job, stop)
    if not stop.signal:
        report(job)
    return 128 + stop.signal if stop.signal else 0


# --- Setting up -----------------------------------------------------------------------


def prepare(config: flags.Config, given: set[str]) -> Run:
    """Load data, make or restore the model; every refusal comes before compiling."""
    folder = Path(config.run_dir)
    recorded = checkpoint.read_config(folder)
    config = settle(config, given, recorded)
    name, train_set, test_set = load_digits(config, recorded)
    dataset = {"name": name, "sha256": mnist.checksum(train_set, test_set)}
    if recorded and dataset["sha256"] != recorded["dataset"]["sha256"]:
        raise ValueError(
            f"{folder} holds a run on other data ({recorded['dataset']['name']}, not "
            f"this {name}): use that data, or choose another --run_dir"
        )
    if config.validation_size + config.batch_size > len(train_set.images):
        raise ValueError(
            f"--validation_size={config.validation_size} and "
            f"--batch_size={config.batch_size}: expected at least one batch beside the "
            f"validation images, got {len(train_set.images)} images in all"
        )
    train_set, validation_set = batches.split(train_set, config.validation_size)
    for split in ("train", "validation", "test"):
        dataset[f"{split}_images"] = len(locals()[f"{split}_set"].images)
    held_out = partial(
        batches.held_out_pixels, binarization=config.binarization, seed=config.seed
    )
    to_float = partial(batches.to_float, binarization=config.binarization)
    params = vae.init(
        config.seed,
        config.hidden_sizes,
        config.latent_dim,
        batches.mean_pixel(train_set.images),
    )
    activation = vae.ACTIVATIONS[config.activation]
    infer = partial(vae.infer, activation=activation)
    state = step.init_state(params)
    return Run(
        config=config,
        folder=folder,
        dataset=dataset,
        train_images=batches.flatten(train_set.images),
        validation_pixels=held_out(
            batches.flatten(validation_set.images), index=VALIDATION
        ),
        test_pixels=held_out(batches.flatten(test_set.images), index=TEST),
        test_labels=test_set.labels,
        to_float=to_float,
        infer=infer,
        generate=partial(vae.generate, activation=activation),
        evaluate=evaluate.make_evaluate(
            infer, params, to_float, config.seed, config.latent_dim
        ),
        state=state,
        manager=restore_or_start(config, state, folder, dataset),
    )


def settle(config: flags.Config, given: set[str], recorded) -> flags.Config:
    """The config to use beside the one that made the run; refuse what differs.

    Training states every flag, defaults included. The other modes take the run's own
    flags for those that are not given.
    """
    if not recorded:
        return config
    past = flags.from_record(recorded["flags"])
    kept = set(flags.OF_RUN)
    if config.mode != "train":
        kept &= given
        if config.mode == "generate":
            kept -= {"seed"}
        given = given | {"mode", "run_dir"}
        config = dataclasses.replace(past, **{n: getattr(config, n) for n in given})
    differing = [
        f"--{name} (the run: {getattr(past, name)}, now: {getattr(config, name)})"
        for name in flags.OF_RUN
        if name in kept and getattr(past, name) != getattr(config, name)
    ]
    if differing:
        raise ValueError(
            f"{config.run_dir} holds a run with other flags: {', '.join(differing)}; "
            "choose another --run_dir, or give the run's values"
        )
    return config


def load_digits(config: flags.Config, recorded):
    """(name, training set, test set) of what --data_dir and --dataset ask for."""
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
            print(f"No MNIST: {error}. Using the built-in synthetic digits instead.")
    return "synthetic", *synthetic.draw()


def restore_or_start(config, state, folder: Path, dataset):
    """The run folder's manager: state restored, or a new run's config written."""
    manager = checkpoint.make_manager(state, folder, config.keep_checkpoints)
    found = checkpoint.latest_step(manager)
    if found is None:
        if config.mode != "train" or config.resume == "required":
            raise ValueError(
                f"{folder}: expected a run to go on from, got no checkpoint; train one "
                f"with python loop.py --run_dir={folder}"
            )
        if metrics.read(folder / "metrics.jsonl"):
            raise ValueError(
                f"{folder} holds the metrics of a run but none of its checkpoints: put "
                "them back, or choose another --run_dir"
            )
    elif config.mode == "train" and config.resume == "never":
        raise ValueError(
            f"{folder} already holds a run, of {found} steps: choose another --run_dir "
            "(--resume=never does not overwrite it)"
        )
    else:
        checkpoint.restore(manager)
    if config.mode == "train":
        folder.mkdir(parents=True, exist_ok=True)
        versions = {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        }
        record = dict(
            flags=dataclasses.asdict(config), versions=versions, dataset=dataset
        )
        checkpoint.write_config(folder, record)
    return manager


# --- Training -------------------------------------------------------------------------


def train(job: Run, stop: Stop) -> None:
    """Take the steps that are left, in blocks; stop, save and say how to go on."""
    config, state = job.config, job.state
    per_epoch = job.steps_per_epoch
    total = config.epochs * per_epoch
    done = int(state.step)
    print(f"{describe(job)}\n{position(job, done)}", flush=True)
    if done >= total:
        print("Nothing is left to train; more --epochs would go on from here.")
        return
    metrics.keep_until(job.folder / "metrics.jsonl", done)
    run_block, record_epoch = make_run_block(job), make_record_epoch(job)
    terminal = sys.stderr.isatty()
    with tqdm.tqdm(
        total=total, initial=done, unit="step", disable=not terminal, desc="compiling"
    ) as bar:
        run_block(done, 0)
        while done < total and not stop.signal:
            epoch = done // per_epoch
            bar.set_description(f"epoch {epoch + 1}/{config.epochs}", refresh=False)
            taken, values = run_block(done)
            done += taken
            bar.update(taken)
            bar.set_postfix(
                loss=f"{values[0]:.2f}",
                distortion=f"{values[1]:.2f}",
                rate=f"{values[2]:.2f}",
            )
            if done % per_epoch == 0:
                bar.write(record_epoch(done // per_epoch), file=sys.stdout)
                sys.stdout.flush()
                if done // per_epoch % config.checkpoint_every == 0:
                    checkpoint.save(job.manager, done)
    checkpoint.save(job.manager, done)
    if stop.signal:
        print(
            f"Stopped and saved. {position(job, done)}\n"
            f"Go on with: python {shlex.join(sys.argv)}",
            flush=True,
        )


def make_run_block(job: Run):
    """run_block(step, most) -> (steps taken, the last one's `step.TOTALS`).

    Takes a block of at most `most` steps from `step` on, within an epoch; with
    most=0 it only compiles. Raises ValueError when a number is not finite.
    """
    config, state, per_epoch = job.config, job.state, job.steps_per_epoch
    longest = max(1, BLOCK_IMAGES // config.batch_size)
    block_steps = math.ceil(per_epoch / math.ceil(per_epoch / longest))
    learning_rate_at = make_learning_rate(job)
    train_step = step.make_train_step(
        job.infer,
        learning_rate_at,
        config.beta1,
        config.beta2,
        config.epsilon,
        config.clip_norm,
    )
    train_block = step.make_train_block(
        state, train_step, job.to_float, config.jit and not config.eager
    )
    draw_noise = step.make_draw_noise(
        config.seed, block_steps, [1, config.batch_size, config.latent_dim]
    )
    drawn = {}  # the current epoch's pixels and order

    def run_block(done: int, most: int = block_steps):
        start = time.perf_counter()
        epoch, first = divmod(done, per_epoch)
        if epoch not in drawn:
            drawn.clear()
            drawn[epoch] = (
                batches.epoch_pixels(
                    job.train_images, config.binarization, config.seed, epoch
                ),
                batches.epoch_order(
                    config.seed, epoch, len(job.train_images), config.batch_size
                ),
            )
        count = min(most, per_epoch - first)
        taken, values, squares = train_block(
            *drawn[epoch],
            draw_noise(tf.constant(done)),
            tf.constant(first),
            tf.constant(count),
        )
        values = values.numpy()
        if not np.all(np.isfinite(values)):
            raise ValueError(
                blame(job, done + int(taken), values, squares, learning_rate_at)
            )
        if count:
            spent = time.perf_counter() - start
            state.seconds.assign(spent + (state.seconds if first else 0.0))
        return int(taken), values

    return run_block


def make_learning_rate(job: Run):
    """learning_rate_at(step) as the flags ask for it."""
    return partial(
        adam.learning_rate_at,
        learning_rate=job.config.learning_rate,
        schedule=job.config.learning_rate_schedule,
        total_steps=job.config.epochs * job.steps_per_epoch,
    )


def blame(job: Run, done: int, values, squares, learning_rate_at) -> str:
    """What was not finite in step number `done`, and how to go on."""
    names = [name for name, _ in networks.named_variables(job.state.params)]
    bad = [n for n, ok in zip(names, np.isfinite(squares), strict=True) if not ok]
    saved = checkpoint.latest_step(job.manager)
    rate = float(learning_rate_at(tf.constant(done - 1)))
    return (
        f"step {done} (epoch {(done - 1) // job.steps_per_epoch + 1}) at learning rate "
        f"{rate:g}: the loss is {values[0]:g}, and the first variable whose gradient "
        f"is not finite is {bad[0] if bad else 'none'}; "
        + (f"the checkpoint of step {saved} is kept: " if saved else "")
        + "go on with a lower --learning_rate, or with --clip_norm"
    )


def make_record_epoch(job: Run):
    """record_epoch(epoch) -> a line of text, after writing the epoch's metrics."""
    write_scalars = metrics.make_scalar_writer(job.folder)
    learning_rate_at = make_learning_rate(job)

    def record_epoch(epoch: int) -> str:
        done = epoch * job.steps_per_epoch
        means = dict(
            zip(step.TOTALS, job.state.totals.numpy() / job.steps_per_epoch)
        )
        record = {"epoch": epoch, "step": done, "seconds": float(job.state.seconds)}
        for name in ("loss", "distortion", "rate"):
            record[f"train_{name}"] = float(means[name])
        line = f"epoch {epoch}/{job.config.epochs}  train {parts(record, 'train')}"
        if len(job.validation_pixels):
            held_out = job.evaluate(job.validation_pixels, VALIDATION)
            record["validation_loss"] = held_out.negative_elbo
            record["validation_distortion"] = held_out.distortion
            record["validation_rate"] = held_out.rate
            line += f"  validation {parts(record, 'validation')}"
        record["learning_rate"] = float(learning_rate_at(tf.constant(done - 1)))
        record["gradient_norm"] = float(means["gradient_norm"])
        metrics.append(job.folder / "metrics.jsonl", record)
        write_scalars(done, "epoch", record)
        return f"{line}  {record['seconds']:.2f} s"

    return record_epoch


def parts(record, kind: str) -> str:
    """A loss and its two parts."""
    loss, distortion, rate = (
        record[f"{kind}_{name}"] for name in ("loss", "distortion", "rate")
    )
    return f"{loss:.2f} = {distortion:.2f} + {rate:.2f}"


# --- Saying and showing ---------------------------------------------------------------


def unit(config: flags.Config) -> str:
    """What the loss is measured in, said wherever it is shown."""
    if config.binarization == "none":
        return "grey-pixel loss an image (not an ELBO)"
    return "nats an image"


def describe(job: Run) -> str:
    """What is trained on what, in two lines."""
    config, dataset = job.config, job.dataset
    hidden = "-".join(str(n) for n in config.hidden_sizes)
    mirrored = "-".join(str(n) for n in reversed(config.hidden_sizes))
    return (
        f"Data: {dataset['name']}, {dataset['train_images']:,} training, "
        f"{dataset['validation_images']:,} validation, {dataset['test_images']:,} test "
        f"images; binarization: {config.binarization}\n"
        f"Model: 784-{hidden}-{config.latent_dim}-{mirrored}-784, {config.activation}; "
        f"loss = distortion + rate, {unit(config)}"
    )


def position(job: Run, done: int) -> str:
    """Where the run is."""
    epoch, extra = divmod(done, job.steps_per_epoch)
    return (
        f"Run: {job.folder}, at epoch {epoch}"
        + (f" and {extra} of {job.steps_per_epoch} steps" if extra else "")
        + f" of {job.config.epochs}"
    )


def report(job: Run) -> None:
    """Test numbers into evaluations.jsonl and onto the screen, then the figures."""
    start = time.perf_counter()
    evaluation = job.evaluate(job.test_pixels, TEST)
    done = int(job.state.step)
    record = {
        "split": "test",
        "epoch": done // job.steps_per_epoch,
        "step": done,
        "dataset": job.dataset["name"],
        "binarization": job.config.binarization,
        "images": len(job.test_pixels),
        "negative_elbo": evaluation.negative_elbo,
        "distortion": evaluation.distortion,
        "rate": evaluation.rate,
        "active_units": evaluation.active_units,
        "seconds": time.perf_counter() - start,
    }
    metrics.append(job.folder / "evaluations.jsonl", record)
    metrics.make_scalar_writer(job.folder)(done, "test", record)
    history = metrics.read(job.folder / "metrics.jsonl")
    if job.config.figures:
        draw_figures(job, evaluation, history)
    grey = job.config.binarization == "none"
    trained = sum(epoch["seconds"] for epoch in history)
    rows = {
        "data set": f"{record['dataset']}, {record['images']:,} test images",
        "test loss (grey, not an ELBO)" if grey else "test -ELBO": (
            f"{evaluation.negative_elbo:.2f} " + ("" if grey else "nats an image")
        ),
        "  distortion": f"{evaluation.distortion:.2f}",
        "  rate": f"{evaluation.rate:.2f}",
        "active units": f"{evaluation.active_units} of {job.config.latent_dim}",
        "trained": f"{record['epoch']} epochs, {done:,} steps, {trained:.1f} s",
        "everything is in": f"{job.folder}/",
    }
    width = max(len(name) for name in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))


def pixel_means(job: Run, z) -> np.ndarray:
    """E[x|z] for z [N, D], as images [N, 28, 28] in [0, 1]."""
    z = tf.constant(z, tf.float32)
    means = tf.sigmoid(job.generate(job.state.params, z)).numpy()
    return means.reshape(-1, mnist.SIDE, mnist.SIDE)


def prior_samples(job: Run, seed: int, index: int, count: int) -> np.ndarray:
    """Pixel means of `count` draws of z from the prior."""
    key = rng.key(seed, rng.Stream.SAMPLE, index)
    return pixel_means(job, rng.normal(key, [count, job.config.latent_dim]))


def draw_figures(job: Run, evaluation, history) -> None:
    """All figures of the run, into figures/."""
    folder = job.folder / "figures"
    z_mean, labels = evaluation.z_mean, job.test_labels
    x = job.to_float(job.test_pixels).numpy().reshape(-1, mnist.SIDE, mnist.SIDE)
    figures.latent_space(folder / "latent_space.png", z_mean, labels)
    if job.config.latent_dim == 2:
        grid = pixel_means(job, figures.manifold_grid())
        figures.manifold(folder / "manifold.png", grid)
    columns = min(12, len(x))
    pairs = [x[:columns], pixel_means(job, z_mean[:columns])]
    for first in range(columns, min(3 * columns, len(x) - columns + 1), columns):
        chosen = slice(first, first + columns)
        pairs += [x[chosen], pixel_means(job, z_mean[chosen])]
    figures.images(
        folder / "reconstructions.png",
        np.concatenate(pairs),
        columns,
        "Test images, and their reconstructions from the posterior mean",
        ("image", "reconstruction") * (len(pairs) // 2),
    )
    figures.images(
        folder / "samples.png",
        prior_samples(job, job.config.seed, 0, SAMPLES),
        10,
        "Pixel means of samples from the prior",
    )
    classes = list(np.unique(labels))[:PAIRS]
    ends = [int(np.flatnonzero(labels == label)[0]) for label in classes]
    rows = []
    for a, b in zip(ends, [*ends[1:], ends[0]], strict=True):
        path = np.linspace(z_mean[a], z_mean[b], 10)
        rows.append(np.concatenate([x[a, None], pixel_means(job, path), x[b, None]]))
    figures.images(
        folder / "interpolations.png",
        np.concatenate(rows),
        12,
        "From one test image to another, along the line between their posterior means",
        [f"{a} to {b}" for a, b in zip(classes, [*classes[1:], classes[0]])],
    )
    if history:
        figures.learning_curves(
            folder / "learning_curves.png", history, unit(job.config)
        )


def generate_digits(job: Run, seed: int) -> None:
    """--num_images digits from the prior, as a picture and as an array."""
    count, done = job.config.num_images, int(job.state.step)
    digits = prior_samples(job, seed, 1, count)
    path = job.folder / "figures" / f"generated_{count}_seed{seed}_step{done}"
    figures.images(
        path.with_suffix(".png"),
        digits,
        math.ceil(math.sqrt(count)),
        f"Pixel means of {count} samples from the prior",
    )
    np.save(path.with_suffix(".npy"), digits)
    print(f"{count} digits: {path}.png, and float32 [{count}, 28, 28] in {path}.npy")


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: argv)
