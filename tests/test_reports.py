"""What people read of an epoch and of an evaluation."""

import pytest

from core import reports

EPOCH = {
    "epoch": 3,
    "seconds": 1.234,
    "train_loss": 150.0,
    "train_distortion": 140.0,
    "train_rate": 10.0,
}
EVALUATION = {
    "split": "test",
    "epoch": 3,
    "step": 1500,
    "dataset": "mnist",
    "binarization": "dynamic",
    "given_labels": False,
    "images": 10_000,
    "negative_elbo": 99.994,
    "distortion": 75.5,
    "rate": 24.494,
    "active_units": 19,
    "knn_accuracy": 0.9712,
    "linear_accuracy": 0.9,
}


def test_an_epoch_is_one_line_of_sums():
    line = reports.epoch_line(EPOCH, 30)
    assert line == "epoch 3/30  train 150.00 = 140.00 + 10.00  1.23 s"
    held_out = {key.replace("train", "validation"): EPOCH[key] for key in EPOCH}
    line = reports.epoch_line(EPOCH | held_out | {"validation_rate": 12.0}, 30)
    assert line.endswith(
        "  validation loss 150.00, 152.00 = 140.00 + 12.00  1.23 s"
    )  # the loss is not that sum, and is told apart from it


def test_a_summary_states_bound_estimate_and_units():
    likelihood = {"nll": 91.2, "nll_standard_error": 0.228, "importance_samples": 5000}
    assert reports.summary(EVALUATION | likelihood, (50,), seconds=12.34) == (
        "Data set      mnist, 10,000 test images\n"
        "Test -ELBO    99.99 nats an image\n"
        "  distortion  75.50\n"
        "  rate        24.49\n"
        "-log p(x)     91.20 +- 0.23 (5,000 importance samples)\n"
        "Active units  19 of 50\n"
        "Labels from z 97.1% by nearest neighbors, 90.0% linearly\n"
        "Trained       3 epochs, 1,500 steps, 12.3 s"
    )


@pytest.mark.parametrize(
    "changes, dims, expected",
    [
        ({"active_units": [21, 5]}, (100, 50), "Active units  21 of 100 and 5 of 50"),
        ({"given_labels": True}, (50,), "an image, a bound on -log p(x|y)\n"),
        ({"binarization": "none"}, (50,), "loss     99.99 grey-pixel loss an image,"),
        ({"split": "validation"}, (50,), "Validation -ELBO 99.99 nats an image"),
    ],
)
def test_a_summary_says_what_the_numbers_are_of(changes, dims, expected):
    assert expected in reports.summary(EVALUATION | changes, dims)


def test_a_conditional_likelihood_is_said_to_be_one():
    record = EVALUATION | {"given_labels": True, "nll": 1.0, "nll_standard_error": 0.1}
    text = reports.summary(record | {"importance_samples": 10}, (50,))
    assert "-log p(x|y)   1.00 +- 0.10 (10 importance samples)" in text
