"""The data set that is asked for: found, split, and fixed for evaluation."""

from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from core import batches, mnist, synthetic

# Of the streams EVALUATE and LIKELIHOOD.
INDEX = {"validation": 0, "test": 1, "train": 2}


class Split(NamedTuple):
    """Images and labels, grey as they were loaded or binarized."""

    pixels: tf.Tensor  # uint8 [N, 784]; N may be 0
    labels: tf.Tensor  # uint8 [N]


class Data(NamedTuple):
    """The images as they were loaded, grey."""

    record: dict  # name, sha256 and sizes, as config.json keeps them
    train: Split
    validation: Split
    test: Split


def find(dataset: str, data_dir: str, say):
    """(name, training `Digits`, test `Digits`) of a folder, or of a named data set.

    "auto" is MNIST where it can be had; where not, `say(text)` is told that the
    built-in digits stand in.

    Raises:
      ValueError: it cannot be had; the message says what can be done.
    """
    if data_dir:
        return Path(data_dir).resolve().name, *mnist.load(data_dir)
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


def split(name: str, train_set, test_set, validation_size: int) -> Data:
    """The last `validation_size` images of the training `Digits` become a set."""
    edge = len(train_set.images) - validation_size
    parts = [a[:edge] for a in train_set], [a[edge:] for a in train_set], test_set
    train, validation, test = (
        Split(batches.flatten(images), tf.constant(labels)) for images, labels in parts
    )
    record = {
        "name": name,
        "sha256": mnist.checksum(train_set, test_set),
        "train_images": len(train.pixels),
        "validation_images": len(validation.pixels),
        "test_images": len(test.pixels),
    }
    return Data(record, train, validation, test)


def fix(data: Data, name: str, binarization: str, seed: int) -> Split:
    """The split of that name as evaluation sees it: one draw for the whole run."""
    images, labels = getattr(data, name)
    pixels = batches.fixed_pixels(images, binarization, seed, INDEX[name])
    return Split(pixels, labels)
