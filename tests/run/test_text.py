"""What people read of a run, an epoch and an evaluation."""

import errno
import os
import re

import numpy as np
import pytest
import tensorflow as tf

from core import settings as settings_of
from core.data import datasets
from core.errors import UserError
from core.run import text

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
    "beta": 1.0,
    "seconds": 3.21,
}


# --- Errors ---------------------------------------------------------------------------


MODES = "train evaluate generate report explore compare encode export".split()
every_mode = pytest.mark.parametrize("mode", MODES)
OTHER = dict.fromkeys(MODES, "another --run_dir") | {"compare": "others for --runs"}


@every_mode
def test_what_a_user_can_mend_is_said_in_one_line(mode):
    error = UserError("--epochs=0: expected\n  a whole   number")
    assert text.explain(error, mode) == "--epochs=0: expected a whole number"


TAKES_MEMORY = {  # mode -> flags that would help, of those that it has
    "train": {"--batch_size", "--num_samples"},
    "evaluate": {"--evaluation_images"},
    "generate": {"--num_images"},
    "compare": {"--runs"},
    "report": {"--evaluation_images"},
    "explore": set(),
    "encode": {"--images"},
    "export": set(),
}


@every_mode
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        tf.errors.ResourceExhaustedError(None, None, "OOM when\nallocating"),
    ],
    ids=["Python", "TensorFlow"],
)
def test_a_lack_of_memory_is_said_with_what_takes_it(error, mode):
    found = text.explain(error, mode)
    assert found.startswith("out of memory: choose ") and "\n" not in found
    assert set(re.findall(r"--\w+", found)) == TAKES_MEMORY[mode]
    assert ("smaller sizes" in found) == (mode not in ("generate", "compare", "encode"))


@every_mode
def test_no_advice_names_a_flag_that_its_mode_refuses(mode):
    errors = [MemoryError(), *map(system_error, errno.errorcode)]
    for error in errors:
        flags = re.findall(r"--(\w+)", text.explain(error, mode))
        assert set(flags) <= settings_of.used_by(mode)


def system_error(number):
    return OSError(number, os.strerror(number), "runs/first")


@every_mode
@pytest.mark.parametrize("name", "ENOSPC EDQUOT EFBIG".split())
def test_a_disk_that_is_full_is_said_with_what_is_safe(name, mode):
    number = getattr(errno, name)
    found = text.explain(system_error(number), mode)
    assert os.strerror(number) in found and "'runs/first'; what was saved" in found
    assert "intact: make room, and run the same command again" in found
    assert found.endswith("again (with --resume=auto)" if mode == "train" else "again")


@every_mode
@pytest.mark.parametrize("name", "EROFS EACCES EPERM".split())
def test_who_may_not_write_or_read_is_not_sent_to_make_room(name, mode):
    number = getattr(errno, name)
    found = text.explain(system_error(number), mode)
    assert os.strerror(number) in found and "'runs/first'; what was saved" in found
    assert "intact: expected a place that may be read and written" in found
    assert found.endswith(f"change its permissions, or choose {OTHER[mode]}")
    assert "room" not in found


@every_mode
@pytest.mark.parametrize("name", "EEXIST ENOTDIR ENOENT".split())
def test_a_place_for_no_folder_is_said(name, mode):
    found = text.explain(system_error(getattr(errno, name)), mode)
    assert "'runs/first'; expected a place for a folder" in found
    assert found.endswith(f"choose {OTHER[mode]}")


@every_mode
def test_of_another_error_of_the_system_nothing_is_guessed(mode):
    for error in (system_error(errno.EIO), OSError("ckpt-5 cannot be written (why)")):
        assert text.explain(error, mode) == str(error)


@every_mode
def test_an_errors_line_is_short(mode):
    for error in [MemoryError(), *map(system_error, errno.errorcode)]:
        assert len(text.explain(error, mode)) <= 200


def test_a_farewell_says_how_to_go_on():
    assert "goes on from it" in text.farewell("train")
    assert "--resume=auto" in text.farewell("train")
    for mode in ("evaluate", "generate"):
        assert text.farewell(mode).endswith(f"begins --mode={mode} anew.")


# --- The run --------------------------------------------------------------------------


def make_data(digits, binarization="dynamic"):
    settings = settings_of.Data(validation_size=30, binarization=binarization)
    return datasets.split("tiny", *digits, settings)


def describe(data, model=None, objective=None):
    values = {"hidden_sizes": (9,), "latent_dim": 2, "activation": "relu"}
    model, objective = settings_of.Model(**values | (model or {})), objective or {}
    return text.describe(model, settings_of.Objective(**objective), data)


def test_a_run_is_described_in_two_lines(digits):
    large = make_data(digits)
    large.record["train_images"] = 55_000
    assert describe(large, {"hidden_sizes": (512, 256)}) == (
        "Data: tiny, 55,000 training, 30 validation, 60 test images; binarization: "
        "dynamic\n"
        "Model: 784-512-256-2-256-512-784, relu; loss = distortion + rate, nats an "
        "image"
    )


TWO = {"stochastic_layers": 2, "latent_dims": (4, 3), "upper_hidden_sizes": (6, 5)}
CONV = {"architecture": "conv", "filters": (16, 32), "latent_dim": 8}


@pytest.mark.parametrize(
    "model, expected",
    [
        ({"activation": "tanh"}, "784-9-2-9-784, tanh; loss"),
        ({"conditional": True}, "relu, given the labels; loss"),
        (TWO, "784-9-4-6-5-3-5-6-4-9-784, relu;"),
        (CONV, "784-conv16-conv32-8-conv32-conv16-784, relu;"),
        (CONV | TWO, "784-conv16-conv32-4-6-5-3-5-6-4-conv32-conv16-784, relu;"),
    ],
    ids=["tanh", "conditional", "two layers", "conv", "conv of two layers"],
)
def test_a_model_is_described_by_its_sizes(digits, model, expected):
    assert expected in describe(make_data(digits), model)


def test_a_condition_that_was_never_trained_on_is_known_by_the_others(digits):
    data = make_data(digits)
    data = data._replace(record=data.record | {"classes": [3, 5]})
    assert ", given the labels (3, 5 alone);" in describe(data, {"conditional": True})
    assert "alone" not in describe(data, {})


@pytest.mark.parametrize(
    "objective, expected",
    [
        ({"beta": 2.0}, "loss by --beta=2.0; -ELBO = distortion + rate, nats"),
        (
            {"objective": "iwae", "num_samples": 5, "estimator": "dreg"},
            "loss by --objective=iwae --num_samples=5 --estimator=dreg; -ELBO = ",
        ),
        ({"warmup_epochs": 3, "free_bits": 0.1}, "--warmup_epochs=3 --free_bits=0.1;"),
    ],
    ids=["beta", "iwae", "warmup"],
)
def test_a_loss_that_is_no_elbo_is_told_apart_from_it(digits, objective, expected):
    assert expected in describe(make_data(digits), objective=objective)


@pytest.mark.parametrize("objective", [{}, {"beta": 2.0}], ids=["plain", "beta"])
def test_the_loss_of_grey_pixels_is_never_called_an_elbo(digits, objective):
    found = describe(make_data(digits, "none"), objective=objective)
    assert found.endswith("distortion + rate, grey-pixel loss an image, not an ELBO")
    assert "ELBO =" not in found and "nats" not in found


def test_a_position_is_in_whole_epochs_and_steps_of_the_next():
    found = [text.position("runs/first", done, 30, 15) for done in (0, 15, 36, 450)]
    assert found == [
        "Run: runs/first, after 0 of 30 epochs",
        "Run: runs/first, after 1 of 30 epochs",
        "Run: runs/first, after 2 of 30 epochs and 6 of 15 steps of the next",
        "Run: runs/first, after 30 of 30 epochs",
    ]


# --- Records --------------------------------------------------------------------------


def test_an_epoch_is_one_line_of_sums():
    line = text.epoch_line(EPOCH, 30)
    assert line == "epoch 3/30  train 150.00 = 140.00 + 10.00  1.23 s"
    held_out = {key.replace("train", "validation"): EPOCH[key] for key in EPOCH}
    line = text.epoch_line(EPOCH | held_out | {"validation_rate": 12.0}, 30)
    assert line.endswith(
        "  validation loss 150.00, 152.00 = 140.00 + 12.00  1.23 s"
    )  # the loss is not that sum, and is told apart from it


def test_an_epoch_that_has_a_pause_in_its_seconds_says_so():
    line = text.epoch_line(EPOCH | {"paused": True}, 30)
    assert line.endswith("  1.23 s, with a pause in it") and "\n" not in line


def test_a_summary_states_bound_estimate_and_units():
    likelihood = {"nll": 91.2, "nll_standard_error": 0.228}
    likelihood |= {"importance_samples": 5000, "bfloat16": False}
    assert text.summary(EVALUATION | likelihood, 10_000, (12,), seconds=12.34) == (
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
    assert "-log p(x)     91.20 (5,000" in text.summary(one_image, 10_000, (12,), 1.0)


GREY = {"binarization": "none", "loss": 87.654}
TWO_LAYERS = {"active_units": [2, 1], "kl_per_dim": [[1.5, 0.5, 0.0], [0.25, 0.0]]}


@pytest.mark.parametrize(
    "changes, dims, expected",
    [
        (TWO_LAYERS, (3, 2), "Active units  2 of 3 and 1 of 2"),
        (TWO_LAYERS, (3, 2), "KL, layer 1   1.50 0.50 0.00\nKL, layer 2   0.25 0.00\n"),
        ({"given_labels": True}, (12,), "linearly (z was inferred with the label)"),
        ({"given_labels": True}, (12,), "an image, a bound on -log p(x|y)\n"),
        (GREY, (12,), "Test loss     87.65 grey-pixel loss an image,"),
        ({"split": "validation"}, (12,), "Validation -ELBO 99.99 nats an image"),
    ],
)
def test_a_summary_says_what_the_numbers_are_of(changes, dims, expected):
    assert expected in text.summary(EVALUATION | changes, 10_000, dims, 1.0)


def test_a_rate_that_is_no_closed_form_is_said_to_be_estimated():
    exact = text.summary(EVALUATION | {"kl_samples": 0}, 10_000, (12,), 1.0)
    assert exact == text.summary(EVALUATION, 10_000, (12,), 1.0)  # of an older program
    found = text.summary(EVALUATION | {"kl_samples": 10}, 10_000, (12,), 1.0)
    line = "  rate        24.49"
    estimated = f"{line}, estimated by 10 samples an image\n"
    assert found == exact.replace(f"{line}\n", estimated) != exact


def test_units_without_a_kl_of_their_own_have_no_line():
    """Those of a learned prior, which are the upper ones of two layers."""
    one = text.summary(EVALUATION | {"kl_per_dim": [24.5]}, 10_000, (12,), 1.0)
    assert "KL" not in one and "Active units  9 of 12\n" in one
    lower = TWO_LAYERS | {"kl_per_dim": [[1.5, 0.5, 0.0], [0.25]]}
    two = text.summary(EVALUATION | lower, 10_000, (3, 2), 1.0)
    assert "KL, layer 1   1.50 0.50 0.00\nActive units  2 of 3 and 1 of 2\n" in two
    assert "layer 2" not in two


def test_a_conditional_likelihood_is_said_to_be_one():
    record = EVALUATION | {"given_labels": True, "nll": 1.0, "nll_standard_error": 0.1}
    record |= {"importance_samples": 10, "bfloat16": True}
    found = text.summary(record, 20_000, (12,), 1.0)
    expected = "1.00 +- 0.10 (10 importance samples, products in bfloat16)"
    assert f"-log p(x|y)   {expected}" in found
    assert "mnist, 10,000 of 20,000 test images" in found


def test_a_summary_says_what_was_not_trained_from_the_beginning():
    start = {"start_from": "runs/first", "start_step": 45_000}
    found = text.summary(EVALUATION | start, 10_000, (12,), 12.34)
    assert (
        "Trained       3 epochs, 1,500 steps, 12.3 s, from the weights of runs/first "
        "after 45,000 steps\n" in found
    )
    found = text.summary(EVALUATION | {"epoch": 1}, 10_000, (12,), 12.34)
    assert "Trained       1 epoch, 1,500 steps, 12.3 s\n" in found


def test_a_summary_says_that_built_in_digits_are_not_mnist():
    found = text.summary(EVALUATION | {"dataset": "synthetic"}, 10_000, (12,), 1.0)
    assert "Data set      synthetic (built-in digits, not MNIST), 10,000" in found
    assert "built-in" not in text.summary(EVALUATION, 10_000, (12,), 1.0)


@pytest.mark.parametrize("changes, dims", [({}, (12,)), (TWO_LAYERS, (3, 2))])
def test_of_a_single_image_there_are_no_active_units(changes, dims):
    """Their posterior means vary over images, and one image has no variance."""
    record = EVALUATION | changes | {"images": 1}
    found = text.summary(record, 10_000, dims, 1.0)
    assert "\nActive units  undefined for a single image\n" in found
    assert " of " not in found.split("Active units")[1].split("\n")[0]
    assert "undefined" not in text.summary(record | {"images": 2}, 10_000, dims, 1.0)


@pytest.mark.parametrize(
    "beta, last, said",
    [
        (1.0, 0.0196, "0.0196"),
        (4.0, 2.0, "2"),
        (0.1, 0.05, "0.05"),
        (1.0, 0.0, "0"),
        (1.0, 0.99, "0.99"),
        (1.0, 1.0, None),
        (0.1, float(np.float32(0.1)), None),  # as a warm-up that is over leaves it
        (0.7, float(np.float32(0.7)), None),
        (1.0, 29_999 / 30_000, None),  # no more than one step is missing
        (0.0, 0.0, None),
    ],
)
def test_a_summary_says_that_a_warm_up_was_not_over(beta, last, said):
    record = EVALUATION | {"beta": beta, "kl_weight": last}
    trained = text.summary(record, 10_000, (12,), 12.34).split("\n")[-2]
    weight = f", KL weight only {said} at the end" if said else ""
    assert trained == f"Trained       3 epochs, 1,500 steps, 12.3 s{weight}"
