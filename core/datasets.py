"""The data set that is asked for: found, split, and held out."""

from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from core import batches, mnist, synthetic

INDEX = {
    "validation": 0,
    "test": 1,
    "train": 2,
}  # of the streams EVALUATE and LIKELIHOOD


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
    sha256 = mnist.checksum(train_set, test_set)
    train_set, validation_set = batches.split(train_set, validation_size)
    train, validation, test = (
        Split(batches.flatten(images), tf.constant(labels))
        for images, labels in (train_set, validation_set, test_set)
    )
    record = {
        "name": name,
        "sha256": sha256,
        "train_images": len(train.pixels),
        "validation_images": len(validation.pixels),
        "test_images": len(test.pixels),
    }
    return Data(record, train, validation, test)


def hold_out(data: Data, name: str, binarization: str, seed: int) -> Split:
    """The split of that name as evaluation sees it: drawn once for the whole run."""
    images, labels = getattr(data, name)
    index = INDEX[name]
    return Split(batches.held_out_pixels(images, index, binarization, seed), labels)
