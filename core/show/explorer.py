"""A run's latent space to walk through: one HTML file without a server or a network.

What its networks need stands in it as JSON; they run in `explorer.js`.
"""

import base64
import html
import json
import string
from pathlib import Path

import numpy as np
import tensorflow as tf

from core import numerics, rng
from core import settings as settings_of
from core.data import batches, datasets
from core.evaluation import bounds
from core.model import distributions
from core.progress import say
from core.run import files, text
from core.show import figures, gallery

HERE = Path(__file__).parent
IMAGES = 2000  # of a split that are on the map
NOISE = 16  # samples of z that a drawing's distortion and rate are averaged over
DRAWS = 1000  # from a prior whose density on the map has no closed form


def explore(model, weights, data, folder, run_settings, settings) -> None:
    """Write the page of the test images, as --mode=explore asks."""
    del run_settings, settings  # the run's own count
    path = folder.path / "figures" / "explorer.html"
    write(path, model, weights, data, folder)
    say(f"Open it in a browser: {path}")


def write(path: Path, model, weights, data, folder, kind="test") -> None:
    """Write the page of a run with these weights, and of its images of a `kind`."""
    ends = "html", "css", "js"
    source = {end: (HERE / f"explorer.{end}").read_text("utf-8") for end in ends}
    flags = folder.recorded["flags"]
    settings = settings_of.from_record(flags, str(folder.path))
    about = text.describe(settings.model, settings.objective, data)
    about += f"\nRun: {folder.path}, after {folder.step:,} steps"
    traits = {  # of the run: the page shows what is of one only where it is there
        "conditional": model.conditional,
        "layered": len(model.latent_dims) == 2,
        "wide": max(model.latent_dims) > 2,
        "grey": data.binarization == "none",
    }
    page = string.Template(source["html"]).substitute(
        title=html.escape(f"{folder.path.name}: a model of {data.record['name']}"),
        about=html.escape(about),
        traits=" ".join(name for name, has_it in traits.items() if has_it),
        total="loss" if traits["grey"] else "−ELBO",
        kind=kind,
        style=source["css"],
        script=source["js"],
        page=embedded(contents(model, weights, data, settings, kind)),
    )
    files.write_whole(path, page.encode("utf-8", "replace"))


def embedded(value) -> str:
    """A value as JSON that can stand within <script>: ASCII without "<"."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def packed(array) -> dict:
    """A float array [..., C] as whole numbers of 16 bits times a scale for each column,
    little-endian: off by at most 1 / 65534 of the column's largest number. Of a dict,
    its values."""
    if isinstance(array, dict):
        return {name: packed(value) for name, value in array.items()}
    array = np.asarray(array, np.float32)
    rows = array.reshape(-1, array.shape[-1])
    scale = (np.maximum(np.abs(rows).max(axis=0), 1e-30) / 32767).astype("<f4")
    whole = np.rint(rows / scale).clip(-32767, 32767).astype("<i2")
    return {"shape": array.shape, "scale": _base64(scale), "int16": _base64(whole)}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


@numerics.full_precision()
def contents(model, weights, data, settings, kind: str) -> dict:
    """What `explorer.js` reads. Every image is cut at one half, as a drawing is there,
    so that their numbers compare: grey pixels have no likelihood."""
    seed = settings.run.seed
    split = datasets.fix(data._replace(binarization="threshold"), kind, seed)
    found = bounds.evaluate(model, weights, split, kind, seed)
    shown = datasets.Split(*(part[:IMAGES] for part in split))
    draws = gallery.draws(model.prior, weights, seed)[:DRAWS]
    # A mixture is known by its parts, which may be few of its weights.
    used = {n: w for n, w in weights.items() if n != "prior" or not model.prior.parts}
    key = rng.key(seed, rng.Stream.SAMPLE, 4)
    return {
        "kind": kind,
        "images": len(split.pixels),
        "conditional": model.conditional,
        "activation": settings.model.activation,
        "max_log_var": distributions.MAX_LOG_VAR,
        "exact_kl": model.prior.exact_kl,
        "colors": figures.PALETTE,
        "distortion": found.distortion,
        "rate": found.rate,
        "layers": layers(model, weights, shown, found.kl_per_dim),
        "labels": shown.labels.numpy().tolist(),
        "pixels": _base64(np.packbits(shown.pixels.numpy(), axis=1)),
        "noise": packed(rng.normal(key, [NOISE, sum(model.latent_dims)])),
        "draws": packed(draws),
        "prior": packed(mixture(model, weights, draws)),
        "weights": packed(used),
    }


def mixture(model, weights, draws: np.ndarray) -> dict:
    """The Gaussians that a prior is made of; for one that is made otherwise, kernels of
    Silverman's width for two dimensions around `draws` [N, D]."""
    names = "logits", "mean", "log_var"
    if model.prior.parts:
        return dict(zip(names, model.prior.parts(weights), strict=True))
    width = 2 * np.log(draws.std(axis=0) * len(draws) ** (-1 / 6))
    parts = np.zeros(len(draws)), draws, np.broadcast_to(width, draws.shape)
    return dict(zip(names, parts, strict=True))


def layers(model, weights, split, kls) -> list[dict]:
    """Of each layer of latents, for the images of `split`: mean [N, D] and log variance
    of its posterior, given the mean of the layer below; and what the dimensions tell:
    their KL, or the variance of the means where the KL [G] is not known for each."""
    labels = split.labels if model.conditional else None
    x, y = batches.to_batch(split.pixels, labels)
    start, found = 0, []
    for layer, (size, kl) in enumerate(zip(model.latent_dims, kls, strict=True)):
        noise = np.zeros([2, 1, sum(model.latent_dims)], np.float32)
        noise[1, :, start : start + size] = 1  # the mean, and a deviation from it
        mean, moved = samples(model, weights, x, y, tf.constant(noise))[layer].numpy()
        variance, start = np.var(mean, axis=0), start + size
        values = kl if len(kl) == size else variance
        found.append(
            {
                "mean": packed(mean),
                "log_var": packed(2 * np.log(np.maximum(moved - mean, 1e-6))),
                "measure": "KL" if len(kl) == size else "variance",
                "values": np.round(values, 3).tolist(),
                "order": np.argsort(-values, kind="stable").tolist(),
                "active": (variance > bounds.ACTIVE_VARIANCE).tolist(),
            }
        )
    return found


@tf.function(autograph=False)  # which leaves out what is not asked for: the images
def samples(model, weights, x, y, noise):
    """z [K, B, D] of each layer, drawn from its posterior with `noise`."""
    return [latent.z for latent in model.infer(weights, x, noise, y).latents]
