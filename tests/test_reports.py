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
    "seed": 7,
    "given_labels": False,
    "images": 10_000,
    "negative_elbo": 99.994,
    "distortion": 75.5,
    "rate": 24.494,
    "active_units": 9,
    "kl_per_dim": [2.5] * 9 + [0.125, 0.0, -0.001],
    "knn_accuracy": 0.9712,
    "linear_accuracy": 0.9,
    "seconds": 3.21,
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
    likelihood = {"nll": 91.2, "nll_standard_error": 0.228}
    likelihood |= {"importance_samples": 5000, "bfloat16": False}
    assert reports.summary(EVALUATION | likelihood, 10_000, (12,), seconds=12.34) == (
        "Data set      mnist, 10,000 test images\n"
        "Binarization  dynamic, seed 7\n"
        "Test -ELBO    99.99 nats an image\n"
        "  distortion  75.50\n"
        "  rate        24.49\n"
        "-log p(x)     91.20 +- 0.23 (5,000 importance samples)\n"
        "KL by unit    2.50 2.50 2.50 2.50 2.50 2.50 2.50 2.50 2.50 0.12\n"
        "              0.00 0.00\n"
        "Active units  9 of 12\n"
        "Labels from z 97.1% by nearest neighbors, 90.0% linearly\n"
        "Trained       3 epochs, 1,500 steps, 12.3 s\n"
        "Evaluated     in 3.2 s"
    )
    one_image = EVALUATION | likelihood | {"nll_standard_error": None}
    assert "-log p(x)     91.20 (5,000" in reports.summary(one_image, 10_000, (12,))


GREY = {"binarization": "none", "loss": 87.654}
TWO_LAYERS = {"active_units": [21, 5], "kl_per_dim": [[1.5, 0.5], [0.25]]}


@pytest.mark.parametrize(
    "changes, dims, expected",
    [
        (TWO_LAYERS, (100, 50), "Active units  21 of 100 and 5 of 50"),
        (TWO_LAYERS, (100, 50), "KL, layer 1   1.50 0.50\nKL, layer 2   0.25\n"),
        ({"given_labels": True}, (50,), "linearly (z was inferred with the label)"),
        ({"given_labels": True}, (50,), "an image, a bound on -log p(x|y)\n"),
        (GREY, (50,), "Test loss     87.65 grey-pixel loss an image,"),
        ({"split": "validation"}, (50,), "Validation -ELBO 99.99 nats an image"),
    ],
)
def test_a_summary_says_what_the_numbers_are_of(changes, dims, expected):
    assert expected in reports.summary(EVALUATION | changes, 10_000, dims)


def test_a_conditional_likelihood_is_said_to_be_one():
    record = EVALUATION | {"given_labels": True, "nll": 1.0, "nll_standard_error": 0.1}
    record |= {"importance_samples": 10, "bfloat16": True}
    text = reports.summary(record, 20_000, (50,))
    expected = "1.00 +- 0.10 (10 importance samples, products in bfloat16)"
    assert f"-log p(x|y)   {expected}" in text
    assert "mnist, 10,000 of 20,000 test images" in text
