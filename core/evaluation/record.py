"""Evaluations as flat records: an epoch's validation, and a whole evaluation."""

import math
import time
from typing import NamedTuple

import numpy as np

from core import numerics, progress, rng
from core.data import datasets
from core.evaluation import bounds, likelihood, probes


def validation(model, weights, split, seed: int) -> dict:
    """An epoch's fields of the validation images; {} where there are none."""
    if not len(split.pixels):
        return {}
    with numerics.full_precision():
        found = bounds.evaluate(model, weights, split, "validation", seed)
    return {
        "validation_loss": found.negative_elbo,
        "validation_distortion": found.distortion,
        "validation_rate": found.rate,
    }


class Evaluated(NamedTuple):
    """A whole evaluation."""

    record: dict  # flat, as evaluations.jsonl keeps it
    split: datasets.Split  # the images that were evaluated
    z_mean: np.ndarray  # [N, D], of the layer next to the image
    images: dict[str, np.ndarray]  # distortion, rate, log_p if asked: of each, [N]

    @property
    def kind(self) -> str:
        """What the images are, such as "binarized test"."""
        return "binarized " * (self.split.pixels.dtype == bool) + self.record["split"]


@numerics.full_precision()
def evaluation(model, weights, data, run_settings, settings, known=None) -> Evaluated:
    """What a model with these weights reaches, on the images that
    `settings.Evaluation` asks for. `known` are the images' numbers of the
    same evaluation made before, whose log p(x) need not be computed again."""
    start, seed = time.perf_counter(), run_settings.seed
    kind = settings.evaluation_split
    split = split_of(data, seed, settings)
    found = bounds.evaluate(model, weights, split, kind, seed)
    images = dict(found.images)
    units, kls = [*found.active_units], [kl.tolist() for kl in found.kl_per_dim]
    one_layer = len(model.latent_dims) == 1
    record = {
        "split": kind,
        "dataset": data.record["name"],
        "binarization": data.binarization,
        "seed": seed,
        "given_labels": model.conditional,
        "images": len(split.pixels),
        "loss" if data.binarization == "none" else "negative_elbo": found.negative_elbo,
        "distortion": found.distortion,
        "rate": found.rate,
        "kl_samples": 0 if model.exact_kl else bounds.ESTIMATE_SAMPLES,
        "active_units": units[0] if one_layer else units,
        "kl_per_dim": kls[0] if one_layer else kls,
        **probe(model, weights, data, found.z_mean, split.labels.numpy(), seed),
    }
    if settings.importance_samples:
        log_p = known.get("log_p") if known else None
        if log_p is None:
            log_p = log_marginal(model, weights, data, run_settings, settings)
        images["log_p"] = log_p
        record |= nll(log_p)
        record["importance_samples"] = settings.importance_samples
        record["bfloat16"] = settings.bfloat16
    record["seconds"] = time.perf_counter() - start
    return Evaluated(record, split, found.z_mean, images)


def probe(model, weights, data, z_mean, labels, seed: int) -> dict:
    """What the posterior means tell of the labels, from training to held-out images."""
    train = datasets.fix(data, "train", seed)  # not kept: it is large
    sets = bounds.encode(model, weights, train), train.labels.numpy(), z_mean, labels
    return {
        "knn_accuracy": probes.nearest_neighbors_accuracy(*sets),
        "linear_accuracy": probes.linear_accuracy(*sets),
    }


def split_of(data, seed: int, settings) -> datasets.Split:
    """The images that `settings.Evaluation` asks for."""
    fixed = datasets.fix(data, settings.evaluation_split, seed)
    count = settings.evaluation_images or None
    return datasets.Split(*(part[:count] for part in fixed))


@numerics.full_precision()
def log_marginal(model, weights, data, run_settings, settings) -> np.ndarray:
    """log p(x) of each image by importance sampling, [N], behind a bar; 0 of those
    that another process has."""
    kind, seed, tiles = settings.evaluation_split, run_settings.seed, []
    split = split_of(data, seed, settings)
    key = rng.key(seed, rng.Stream.LIKELIHOOD, datasets.INDEX[kind])
    work = model, weights, split, key, settings, run_settings
    with progress.bar(len(split.pixels), "image", "-log p(x)") as bar:
        for log_p in likelihood.log_marginal(*work):
            tiles.append(log_p)
            bar.update(len(log_p))
    return np.concatenate(tiles)


def nll(log_p: np.ndarray) -> dict:
    """The mean of -log p(x), and its standard error over images."""
    mean, error = mean_and_error(-log_p)
    return {"nll": mean, "nll_standard_error": error}


def mean_and_error(values: np.ndarray) -> tuple[float, float | None]:
    """Of numbers of images [N], and the mean's standard error; one image has none."""
    several = len(values) > 1
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if several else None
    return float(np.mean(values)), error
