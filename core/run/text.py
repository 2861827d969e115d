"""What a run says of itself: what it is, where it is, and its records for people."""

import dataclasses
import errno

import numpy as np

from core import consistency
from core.data.digits import CLASSES, PIXELS
from core.errors import UserError
from core.run import files

INDENT = "\n" + 14 * " "  # where a summary's second column begins
INTACT = "; what was saved before is intact: "
ADVICE = {  # errors of the system -> what can be done about them
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): f"{INTACT}make room, and run the same "
    "command again{resume}",
    files.NO_WRITING: f"{INTACT}expected a place that may be read and written; change "
    "its permissions, or choose another --run_dir",
    (errno.EEXIST, errno.ENOTDIR, errno.ENOENT): "; expected a place for a folder: "
    "choose another --run_dir",
}
AMONG_RUNS = "another --run_dir", "others for --runs"  # --mode=compare has no folder
LARGE = {  # what takes memory, by mode
    "train": "smaller sizes, or a smaller --batch_size or --num_samples",
    "evaluate": "fewer --evaluation_images, or a run of smaller sizes",
    "generate": "a smaller --num_images",
    "compare": "fewer --runs",
    "report": "fewer --evaluation_images, or a run of smaller sizes",
    "explore": "a run of smaller sizes",
    "encode": "fewer --images",
    "export": "a run of smaller sizes",
}


def explain(error: Exception, mode: str) -> str:
    """An error in one line, and what can be done about it."""
    if not isinstance(error, (UserError, OSError)):
        return f"out of memory: choose {LARGE[mode]}"
    message = " ".join(str(error).split())
    for numbers, advice in ADVICE.items():
        if getattr(error, "errno", None) in numbers:
            resume = " (with --resume=auto)" * (mode == "train")
            message += advice.format(resume=resume)
    return message if mode != "compare" else message.replace(*AMONG_RUNS)


def farewell(mode: str) -> str:
    """What is said when a signal ends the program where nothing is to be saved."""
    if mode != "train":
        return f"Stopped; the same command begins --mode={mode} anew."
    kept = "what was saved is there, and the same command (with --resume=auto)"
    return f"Stopped; {kept} goes on from it."


def unit(binarization: str) -> str:
    """What the loss is measured in, said wherever it is shown."""
    if binarization == "none":
        return "grey-pixel loss an image, not an ELBO"
    return "nats an image"


def describe(model_settings, loss_settings, data) -> str:
    """What is trained on what, in two lines."""
    latents, record = model_settings.latents, data.record
    sizes = [PIXELS, *model_settings.hidden_sizes, latents[0]]
    if model_settings.architecture == "conv":
        sizes[1:-1] = [f"conv{filters}" for filters in model_settings.filters]
    if len(latents) == 2:
        sizes += [*model_settings.upper_hidden_sizes, latents[1]]
    labels, classes = "", record.get("classes", range(CLASSES))
    if model_settings.conditional:
        alone = f" ({', '.join(map(str, classes))} alone)" * (len(classes) < CLASSES)
        labels = f", given the labels{alone}"
    plain, asked = map(dataclasses.asdict, (type(loss_settings)(), loss_settings))
    special = consistency.differences("--{0}={2}", plain, plain, asked)
    loss = f"loss by {' '.join(special)};" if special else "loss ="
    elbo = " -ELBO =" if special and data.binarization != "none" else ""
    return (
        f"Data: {record['name']}, {record['train_images']:,} training, "
        f"{record['validation_images']:,} validation, {record['test_images']:,} test "
        f"images; binarization: {data.binarization}\n"
        f"Model: {'-'.join(map(str, [*sizes, *sizes[-2::-1]]))}, "
        f"{model_settings.activation}{labels}; "
        f"{loss}{elbo} distortion + rate, {unit(data.binarization)}"
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
            parts = (f"{kind}_{part}" for part in ("loss", "distortion", "rate"))
            loss, distortion, rate = (record[part] for part in parts)
            special = abs(loss - distortion - rate) > 1e-5 * abs(loss)
            line += f"  {kind}" + f" loss {loss:.2f}," * special
            line += f" {distortion + rate:.2f} = {distortion:.2f} + {rate:.2f}"
    pause = ", with a pause in it" if "paused" in record else ""
    return f"{line}  {record['seconds']:.2f} s{pause}"


def summary(record: dict, of_images: int, latent_dims, seconds: float) -> str:
    """The `summary_lines`, one below the other."""
    lines = summary_lines(record, of_images, latent_dims, seconds)
    return "\n".join(f"{name:<13} {text}" for name, text in lines.items())


def summary_lines(record: dict, of_images: int, latent_dims, seconds: float) -> dict:
    """{name: text} of an evaluation's record of evaluations.jsonl, after `seconds` of
    training.

    `of_images` are those of the split, of which a part or all were evaluated;
    `latent_dims` are of each layer.
    """
    split, images, given = record["split"], record["images"], record["given_labels"]
    binarization, seed = record["binarization"], f", seed {record['seed']}"
    loss, title = record.get("negative_elbo"), f"{split.capitalize()} -ELBO"
    if binarization == "none":
        seed, loss, title = "", record["loss"], f"{split.capitalize()} loss"
    built_in = " (built-in digits, not MNIST)" * (record["dataset"] == "synthetic")
    part = f" of {of_images:,}" * (images != of_images)
    bound, inferred = ", a bound on -log p(x|y)", " (z was inferred with the label)"
    units = zip(np.atleast_1d(record["active_units"]), latent_dims, strict=True)
    samples = record.get("kl_samples", 0)
    estimated = f", estimated by {samples} samples an image" * (samples > 0)
    active = " and ".join(f"{active} of {all}" for active, all in units)
    return {
        "Data set": f"{record['dataset']}{built_in}, {images:,}{part} {split} images",
        "Binarization": f"{binarization}{seed}",
        title: f"{loss:.2f} {unit(binarization)}{bound * given}",
        "  distortion": f"{record['distortion']:.2f}",
        "  rate": f"{record['rate']:.2f}{estimated}",
        **_likelihood(record),
        **_kl_by_unit(record["kl_per_dim"], latent_dims),
        "Active units": active if images > 1 else "undefined for a single image",
        "Labels from z": f"{record['knn_accuracy']:.1%} by nearest neighbors, "
        f"{record['linear_accuracy']:.1%} linearly{inferred * given}",
        "Trained": _trained(record, seconds),
        "Evaluated": f"in {record['seconds']:.1f} s",
    }


def _likelihood(record: dict) -> dict:
    if "nll" not in record:
        return {}
    given, products = "|y", ", products in bfloat16"
    text, error = f"{record['nll']:.2f}", record["nll_standard_error"]
    if error is not None:  # as it is of a single image
        text += f" +- {error:.2f}"
    text += f" ({record['importance_samples']:,} importance samples"
    text += f"{products * record['bfloat16']})"
    return {f"-log p(x{given * record['given_labels']})": text}


def _kl_by_unit(kl_per_dim: list, latent_dims) -> dict:
    """A line for each layer whose units have a KL of their own."""
    lines, layers = {}, len(latent_dims)
    for i, kls in enumerate([kl_per_dim] if layers == 1 else kl_per_dim, start=1):
        if len(kls) < latent_dims[i - 1]:
            continue
        texts = [f"{round(kl, 2) + 0.0:.2f}" for kl in kls]  # never -0.00
        rows = [" ".join(texts[j : j + 10]) for j in range(0, len(texts), 10)]
        lines["KL by unit" if layers == 1 else f"KL, layer {i}"] = INDENT.join(rows)
    return lines


def _trained(record: dict, seconds: float) -> str:
    epoch, beta = record["epoch"], record["beta"]
    last = record.get("kl_weight", beta)
    step = record["step"]
    text = f"{epoch} epoch{'s' * (epoch != 1)}, {step:,} step{'s' * (step != 1)}, "
    text += f"{seconds:.1f} s"
    text += f", KL weight only {last:.3g} at the end" * (last < 0.999 * beta)
    if "start_from" in record:
        text += f", from the weights of {record['start_from']} after "
        text += f"{record['start_step']:,} steps"
    return text
