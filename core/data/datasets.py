"""The data set that is asked for: found, split, and fixed for evaluation."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from core import rng
from core.data import batches, binarization, digits, download, idx, synthetic
from core.errors import UserError

DIGESTS = {  # `digits.checksum` of what is known by name
    "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16": "mnist",
    "3c4b6877347599662d882da5a09fb8ccfa469478f8c285e3812e53033ec35181": "synthetic",
}
# Of streams EVALUATE, LIKELIHOOD; "own" are a user's, with a trained model.
INDEX = {"validation": 0, "test": 1, "train": 2, "own": 3}


class Split(NamedTuple):
    """Images and labels, grey as they were loaded or binarized."""

    pixels: tf.Tensor  # uint8 or bool [N, 784]; N may be 0
    labels: tf.Tensor  # uint8 [N]


class Data(NamedTuple):
    """The images as they were loaded, grey, and how they are binarized."""

    record: dict  # name, sha256 and sizes, as config.json keeps them
    train: Split
    validation: Split
    test: Split
    binarization: str


def load(settings, say) -> Data:
    """The data that `settings.Data` asks for, split; UserError if they cannot be had or
    are too few. `say(text)` is told what stands in for them, and what is strange."""
    name, *sets = find(settings.dataset, settings.data_dir, say)
    data = split(name, *sets, settings)
    for remark in digits.remarks(*sets, settings.validation_size):
        say(remark)
    return data


def find(dataset: str, data_dir: str, say):
    """(name, training `Digits`, test `Digits`) of a folder, or of a named data set;
    UserError if it cannot be had.

    "auto" is MNIST where it can be had; where not, `say(text)` is told that the
    built-in digits stand in.
    """
    if data_dir:
        sets = idx.load(data_dir)
        return _name_of(Path(data_dir), digits.checksum(*sets), dataset), *sets
    if dataset != "synthetic":
        name = "mnist" if dataset == "auto" else dataset
        try:
            return name, *idx.load(download.fetch(name, download.cache_folder()))
        except UserError as error:
            if dataset != "auto":
                raise UserError(
                    f"{error}; use --data_dir=DIR or --dataset=synthetic"
                ) from error
            say(f"No MNIST: {error}. Using the built-in synthetic digits instead.")
    return "synthetic", *synthetic.draw()


def _name_of(folder: Path, digest: str, dataset: str) -> str:
    """A published name if the digest agrees, else the folder's, which is no claim."""
    if digest in DIGESTS:
        return DIGESTS[digest]
    if dataset == "mnist":
        raise UserError(
            f"--dataset=mnist: expected MNIST in --data_dir={folder}, got data of "
            "another digest: leave out --dataset, or name MNIST's folder"
        )
    name = folder.resolve().name
    claims = re.search("mnist|synthetic", name, re.IGNORECASE)
    return f"{name} (a folder)" if claims else name


def split(name: str, train_set, test_set, settings) -> Data:
    """Two `Digits`, and the last `validation_size` training images as a set of their
    own; UserError if they are no digits, or too few for `settings.Data`."""
    digits.expect_digits(train_set, f"the training set of {name}")
    digits.expect_digits(test_set, f"the test set of {name}")
    images, held_out = len(train_set.images), settings.validation_size
    if held_out >= images:
        raise UserError(
            f"--validation_size={held_out}: expected less than {images}, the size of "
            "the training set: give a smaller one"
        )
    edge = images - held_out
    parts = [a[:edge] for a in train_set], [a[edge:] for a in train_set], test_set
    train, validation, test = (
        Split(batches.flatten(images), tf.constant(labels)) for images, labels in parts
    )
    record = {
        "name": name,
        "sha256": digits.checksum(train_set, test_set),
        "classes": np.unique(train.labels).tolist(),  # that are trained on
        "train_images": len(train.pixels),
        "validation_images": len(validation.pixels),
        "test_images": len(test.pixels),
    }
    return Data(record, train, validation, test, settings.binarization)


def expect_steps(data: Data, settings, conditional: bool) -> None:
    """Raise UserError if there are not the images, random numbers or labels for the
    steps that `settings.Training` asks for."""
    images, batch_size = len(data.train.pixels), settings.batch_size
    if batch_size > images:
        raise UserError(
            f"--batch_size={batch_size}: expected at most {images}, the number of "
            f"training images beside {data.record['validation_images']} held out by "
            "--validation_size: give smaller ones"
        )
    steps = settings.epochs * (images // batch_size)
    if steps > rng.MAX_INDEX:
        raise UserError(
            f"expected at most {rng.MAX_INDEX:,} steps, each with its own random "
            f"numbers, got {steps:,}: give fewer --epochs"
        )
    parts = (data.train, data.validation, data.test)
    labels = np.concatenate([part.labels for part in parts])
    if conditional and not all(
        0 <= y < digits.CLASSES for y in (min(labels), max(labels))
    ):
        raise UserError(
            f"expected labels from 0 to {digits.CLASSES - 1} for --conditional, got "
            f"{min(labels)} to {max(labels)} in {data.record['name']}"
        )


def fix(data: Data, kind: str, seed: int) -> Split:
    """The split of that kind as evaluation sees it: one draw for the whole run."""
    images, labels = getattr(data, kind)
    pixels = binarization.fixed_pixels(images, data.binarization, seed, INDEX[kind])
    return Split(pixels, labels)
