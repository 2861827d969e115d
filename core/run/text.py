"""What a run says of itself: what it is, where it is, and its records as people read
them."""

import dataclasses
import errno

import numpy as np

from core.data.digits import PIXELS
from core.errors import UserError

INDENT = "\n" + 14 * " "  # where a summary's second column begins


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_FOLDER = (errno.EEXIST, errno.ENOTDIR, errno.ENOENT)
LARGE = {  # what takes memory, by mode
    "train": "smaller sizes, or a smaller --batch_size or --num_samples",
    "evaluate": "fewer --evaluation_images, or a run of smaller sizes",
    "generate": "a smaller --num_images",
}


def explain(error: Exception, mode: str) -> str:
    """An error in one line, and what can be done about it."""
    message = " ".join(str(error).split())
    if isinstance(error, UserError):
        return message
    if not isinstance(error, OSError):
        return f"out of memory: choose {LARGE[mode]}"
    if error.errno in FULL:
        return (
            f"{message}; what was saved before is intact: make room, and run the same "
            "command again" + " (with --resume=auto)" * (mode == "train")
        )
    if error.errno in FORBIDDEN:
        return (
            f"{message}; what was saved before is intact: expected a place that may be "
            "read and written; change its permissions, or choose another --run_dir"
        )
    if error.errno in NO_FOLDER:
        return f"{message}; expected a place for a folder: choose another --run_dir"
    return message


def farewell(mode: str) -> str:
    """What is said when a signal ends the program where nothing is to be saved."""
    if mode == "train":
        return (
            "Stopped; what was saved is there, and the same command (with "
            "--resume=auto) goes on from it."
        )
    return f"Stopped; the same command begins --mode={mode} anew."


def unit(binarization: str) -> str:
    """What the loss is measured in, said wherever it is shown."""
    if binarization == "none":
        return "grey-pixel loss an image, not an ELBO"
    return "nats an image"


def loss_terms(special: list[str], binarization: str) -> str:
    """What an epoch's numbers are, for a loss with these `special` flags."""
    parts = f"distortion + rate, {unit(binarization)}"
    if not special:
        return f"loss = {parts}"
    name = "" if binarization == "none" else "-ELBO = "
    return f"loss by {' '.join(special)}; {name}{parts}"


def describe(model_settings, loss_settings, data) -> str:
    """What is trained on what, in two lines."""
    latents, record = model_settings.latents, data.record
    sizes = [PIXELS, *model_settings.hidden_sizes, latents[0]]
    if model_settings.architecture == "conv":
        sizes[1:-1] = [f"conv{filters}" for filters in model_settings.filters]
    if len(latents) == 2:
        sizes += [*model_settings.upper_hidden_sizes, latents[1]]
    labels = ", given the labels" if model_settings.conditional else ""
    special = [
        f"--{field.name}={getattr(loss_settings, field.name)}"
        for field in dataclasses.fields(loss_settings)
        if getattr(loss_settings, field.name) != field.default
    ]
    return (
        f"Data: {record['name']}, {record['train_images']:,} training, "
        f"{record['validation_images']:,} validation, {record['test_images']:,} test "
        f"images; binarization: {data.binarization}\n"
        f"Model: {'-'.join(map(str, [*sizes, *sizes[-2::-1]]))}, "
        f"{model_settings.activation}{labels}; "
        f"{loss_terms(special, data.binarization)}"
    )


def position(path, done: int, epochs: int, epoch_steps: int) -> str:
    """Where the run is, and how far."""
    epoch, extra = divmod(done, epoch_steps)
    steps = f" and {extra} of {epoch_steps} steps of the next" if extra else ""
    return f"Run: {path}, after {epoch} of {epochs} epochs{steps}"


def epoch_line(record: dict, epochs: int) -> str:
    """An epoch's record of metrics.jsonl: each -ELBO = distortion + rate."""
    line = f"epoch {record['epoch']}/{epochs}"
    for kind in ("train", "validation"):
        if f"{kind}_loss" in record:
            loss, distortion, rate = (
                record[f"{kind}_{part}"] for part in ("loss", "distortion", "rate")
            )
            if abs(loss - distortion - rate) > 1e-5 * abs(loss):
                line += f"  {kind} loss {loss:.2f},"
            else:
                line += f"  {kind}"
            line += f" {distortion + rate:.2f} = {distortion:.2f} + {rate:.2f}"
    pause = ", with a pause in it" if "paused" in record else ""
    return f"{line}  {record['seconds']:.2f} s{pause}"


def summary(record: dict, of_images: int, latent_dims, seconds: float) -> str:
    """An evaluation's record of evaluations.jsonl, after `seconds` of training.

    `of_images` are those of the split, of which a part or all were evaluated;
    `latent_dims` are of each layer.
    """
    split, given = record["split"], record["given_labels"]
    grey = record["binarization"] == "none"
    images = f"{record['images']:,}"
    images += "" if record["images"] == of_images else f" of {of_images:,}"
    units = zip(np.atleast_1d(record["active_units"]), latent_dims, strict=True)
    lines = {
        "Data set": f"{record['dataset']}{_about(record)}, {images} {split} images",
        "Binarization": record["binarization"]
        + ("" if grey else f", seed {record['seed']}"),
        f"{split.capitalize()} {'loss' if grey else '-ELBO'}": (
            f"{record['loss' if grey else 'negative_elbo']:.2f} "
            f"{unit(record['binarization'])}"
            + (", a bound on -log p(x|y)" if given else "")
        ),
        "  distortion": f"{record['distortion']:.2f}",
        "  rate": f"{record['rate']:.2f}",
        **_likelihood(record),
        **_kl_by_unit(record, len(latent_dims)),
        "Active units": (
            " and ".join(f"{active} of {all}" for active, all in units)
            if record["images"] > 1
            else "undefined for a single image"
        ),
        "Labels from z": f"{record['knn_accuracy']:.1%} by nearest neighbors, "
        f"{record['linear_accuracy']:.1%} linearly"
        + (" (z was inferred with the label)" if given else ""),
        "Trained": _trained(record, seconds),
        "Evaluated": f"in {record['seconds']:.1f} s",
    }
    return "\n".join(f"{name:<13} {text}" for name, text in lines.items())


def _about(record: dict) -> str:
    built_in = record["dataset"] == "synthetic"
    return " (built-in digits, not MNIST)" if built_in else ""


def _likelihood(record: dict) -> dict:
    if "nll" not in record:
        return {}
    error = record["nll_standard_error"]  # None of a single image
    return {
        f"-log p(x{'|y' if record['given_labels'] else ''})": (
            f"{record['nll']:.2f}{'' if error is None else f' +- {error:.2f}'} "
            f"({record['importance_samples']:,} importance samples"
            + (", products in bfloat16)" if record["bfloat16"] else ")")
        )
    }


def _kl_by_unit(record: dict, layers: int) -> dict:
    kls = [record["kl_per_dim"]] if layers == 1 else record["kl_per_dim"]
    lines = {}
    for i, kl_per_dim in enumerate(kls, start=1):
        texts = [f"{round(kl, 2) + 0.0:.2f}" for kl in kl_per_dim]  # never -0.00
        rows = [" ".join(texts[j : j + 10]) for j in range(0, len(texts), 10)]
        lines["KL by unit" if layers == 1 else f"KL, layer {i}"] = INDENT.join(rows)
    return lines


def _trained(record: dict, seconds: float) -> str:
    epochs = f"{record['epoch']} epoch{'s' * (record['epoch'] != 1)}"
    start = ""
    if "start_from" in record:
        start = (
            f", from the weights of {record['start_from']} after "
            f"{record['start_step']:,} steps"
        )
    last, beta = record.get("kl_weight", record["beta"]), record["beta"]
    weight = f", KL weight only {last:.3g} at the end" * (last < 0.999 * beta)
    return f"{epochs}, {record['step']:,} steps, {seconds:.1f} s{weight}{start}"
