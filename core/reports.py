"""Records of an epoch and of an evaluation, as people read them."""

import numpy as np

INDENT = "\n" + 14 * " "  # where a summary's second column begins


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
    return f"{line}  {record['seconds']:.2f} s"


def summary(
    record: dict, all_images: int, latent_dims, about_data="", seconds=0.0
) -> str:
    """An evaluation's record of evaluations.jsonl, after `seconds` of training.

    `all_images` are those of the split that was evaluated, in part or whole;
    `latent_dims` are of each layer; `about_data` is said beside the data set's name.
    """
    binarization, given = record["binarization"], record["given_labels"]
    grey = binarization == "none"
    units = zip(np.atleast_1d(record["active_units"]), latent_dims, strict=True)
    split = record["split"]
    one_layer = len(latent_dims) == 1
    kls = [record["kl_per_dim"]] if one_layer else record["kl_per_dim"]
    images = f"{record['images']:,}"
    images += "" if record["images"] == all_images else f" of {all_images:,}"
    epochs = f"{record['epoch']} epoch{'s' * (record['epoch'] != 1)}"
    lines = {
        "Data set": f"{record['dataset']}{about_data}, {images} {split} images",
        "Binarization": binarization + ("" if grey else f", seed {record['seed']}"),
        f"{split.capitalize()} {'loss' if grey else '-ELBO'}": (
            f"{record['loss' if grey else 'negative_elbo']:.2f} {unit(binarization)}"
            + (", a bound on -log p(x|y)" if given else "")
        ),
        "  distortion": f"{record['distortion']:.2f}",
        "  rate": f"{record['rate']:.2f}",
    }
    if "nll" in record:
        error = record["nll_standard_error"]  # None of a single image
        lines[f"-log p(x{'|y' if given else ''})"] = (
            f"{record['nll']:.2f}{'' if error is None else f' +- {error:.2f}'} "
            f"({record['importance_samples']:,} importance samples"
            + (", products in bfloat16)" if record["bfloat16"] else ")")
        )
    for i, kl_per_dim in enumerate(kls, start=1):
        texts = [f"{round(kl, 2) + 0.0:.2f}" for kl in kl_per_dim]  # never -0.00
        rows = [" ".join(texts[j : j + 10]) for j in range(0, len(texts), 10)]
        lines["KL by unit" if one_layer else f"KL, layer {i}"] = INDENT.join(rows)
    lines |= {
        "Active units": " and ".join(f"{active} of {all}" for active, all in units),
        "Labels from z": f"{record['knn_accuracy']:.1%} by nearest neighbors, "
        f"{record['linear_accuracy']:.1%} linearly"
        + (" (z was inferred with the label)" if given else ""),
        "Trained": f"{epochs}, {record['step']:,} steps, "
        f"{seconds:.1f} s"
        + (
            f", from the weights of {record['start_from']} after "
            f"{record['start_step']:,} steps"
            if "start_from" in record
            else ""
        ),
        "Evaluated": f"in {record['seconds']:.1f} s",
    }
    return "\n".join(f"{name:<13} {text}" for name, text in lines.items())
