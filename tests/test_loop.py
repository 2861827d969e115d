import contextlib
import errno
import itertools
import json
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.image import imread

import flags
import loop
from core import checkpoint, files, metrics, mnist, step, synthetic
from tests.conftest import (
    ROOT,
    as_arguments,
    program,
    run,
    small_settings,
    write_idx_folder,
)

CLOCK = ("seconds",)
METRICS = (
    "epoch step seconds train_loss train_distortion train_rate validation_loss "
    "validation_distortion validation_rate learning_rate gradient_norm"
).split()
EVALUATION = (
    "split epoch step dataset binarization seed given_labels images negative_elbo "
    "distortion rate active_units kl_per_dim knn_accuracy linear_accuracy seconds"
).split()


def weights_and_moments(folder):
    """What `newest_checkpoint` holds of a small dense run: no more and no less."""
    found = newest_checkpoint(folder)
    assert len(found) == 3 * 8 + 2
    return found


def newest_checkpoint(folder):
    """Every number of the newest checkpoint but the clock's and the save counter."""
    path = tf.train.latest_checkpoint(str(folder))
    reader = tf.train.load_checkpoint(path)
    names = [
        name
        for name in reader.get_variable_to_shape_map()
        if not name.startswith(("seconds", "save_counter", "_CHECKPOINTABLE"))
    ]
    return {name: reader.get_tensor(name) for name in names}


def timeless(folder):
    records = metrics.read(Path(folder) / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in CLOCK} for r in records]


def assert_same_run(one, other):
    a, b = weights_and_moments(one), weights_and_moments(other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert timeless(one) == timeless(other) != []


class StopAfter:
    """A stop request that arrives after so many looks at it."""

    def __init__(self, looks, number=signal.SIGTERM):
        self.looks, self.number = looks, number

    @property
    def signal(self):
        self.looks -= 1
        return self.number if self.looks < 0 else 0


@pytest.fixture(scope="session")
def two_epochs(data_dir, tmp_path_factory):
    """The folder of a small run."""
    folder = tmp_path_factory.mktemp("two_epochs")
    run(small_settings(data_dir, folder))
    return folder


@pytest.fixture
def trained(small, two_epochs):
    """The settings of a small run that has ended: a test may do with it as it likes."""
    shutil.copytree(two_epochs, small["run_dir"])
    return small


@pytest.fixture(scope="session")
def straight(data_dir, tmp_path_factory):
    """The folder of a small run of three epochs that was never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    run(small_settings(data_dir, folder), epochs=3)
    return folder


@pytest.fixture
def unreported(monkeypatch):
    """No evaluation and no figures at the end of a run: they take the most time."""
    monkeypatch.setattr(loop, "report", lambda job: None)


# --- The whole job --------------------------------------------------------------------


def test_a_run_leaves_everything_in_its_folder(small, capsys):
    run(small, figures=True)
    folder = Path(small["run_dir"])
    records = metrics.read(folder / "metrics.jsonl")
    assert [list(record) for record in records] == [METRICS] * 2
    assert [record["step"] for record in records] == [15, 30]
    for record in records:
        parts = record["train_distortion"] + record["train_rate"]
        assert record["train_loss"] == pytest.approx(parts, rel=1e-6)
    (evaluation,) = metrics.read(folder / "evaluations.jsonl")
    assert list(evaluation) == EVALUATION
    parts = evaluation["distortion"] + evaluation["rate"]
    assert evaluation["negative_elbo"] == pytest.approx(parts)
    assert evaluation["images"] == 60 and evaluation["dataset"] == "tiny"
    config = json.loads((folder / "config.json").read_text())
    assert config["flags"]["batch_size"] == 20
    assert config["versions"]["tensorflow"] == tf.__version__
    assert len(config["dataset"]["sha256"]) == 64
    pictures = sorted(path.name for path in (folder / "figures").iterdir())
    names = (
        "interpolations latent_space learning_curves manifold reconstructions samples"
    )
    assert pictures == [f"{name}.png" for name in names.split()]
    assert list(folder.glob("events.out.tfevents.*"))
    assert not list(folder.rglob("*.partial"))
    output = capsys.readouterr().out
    assert f"Test -ELBO    {evaluation['negative_elbo']:.2f} nats an image" in output
    for record in records:
        assert f"{record['validation_loss']:.2f}" in output


def test_training_lowers_the_loss(small):
    run(small, epochs=8, learning_rate=5e-3)
    losses = [r["validation_loss"] for r in timeless(small["run_dir"])]
    assert losses[-1] < losses[0] - 50


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_grey_pixels_are_never_called_an_elbo(small, capsys, beta):
    run(small, binarization="none", epochs=1, beta=beta)
    output = capsys.readouterr().out
    assert "Test loss     " in output and "-ELBO " not in output
    assert output.count("not an ELBO") == 2
    (record,) = metrics.read(Path(small["run_dir"]) / "evaluations.jsonl", ["loss"])
    assert "negative_elbo" not in record


def test_no_validation_images_is_a_choice(small):
    run(small, validation_size=0, figures=True)
    assert "validation_loss" not in timeless(small["run_dir"])[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_dim": 5, "learning_rate_schedule": "cosine", "clip_norm": 1.0}
        | {"binarization": "static", "activation": "gelu", "hidden_sizes": (8, 6, 4)},
        {"latent_dim": 1, "figures": True, "activation": "silu", "epochs": 1}
        | {"binarization": "threshold"},
    ],
)
def test_settings_work_together(small, changes):
    run(small, **changes)
    assert np.isfinite(timeless(small["run_dir"])[-1]["train_loss"])


TWO = {"stochastic_layers": 2, "latent_dims": (4, 3), "upper_hidden_sizes": (5,)}
MODELS = [
    {},
    {"conditional": True},
    {"architecture": "conv", "filters": (2, 3)},
    {"architecture": "conv", "filters": (2, 3), "conditional": True},
    TWO,
    TWO | {"conditional": True},
    TWO | {"architecture": "conv", "filters": (2, 3)},
]
OBJECTIVES = [
    {"beta": 2.0, "warmup_epochs": 1, "free_bits": 0.1, "num_samples": 2},
    {"estimator": "stl", "warmup_epochs": 1, "beta": 0.5},
    {"objective": "iwae", "num_samples": 3, "ema_decay": 0.9},
    {"objective": "iwae", "num_samples": 3, "estimator": "dreg"},
    {"objective": "iwae", "num_samples": 3, "warmup_epochs": 1},
]


COMBINATIONS = [m | o for m, o in itertools.product(MODELS, OBJECTIVES)]


def name_of(changes):
    return "-".join(map(str, changes.values()))


def without_hidden_sizes(small, changes):
    left_out = {"hidden_sizes"} if "filters" in changes else set()
    return {k: v for k, v in small.items() if k not in left_out} | changes


@pytest.mark.parametrize("changes", COMBINATIONS, ids=name_of)
@pytest.mark.usefixtures("unreported")
def test_every_model_trains_under_every_objective(small, changes):
    """A few steps and a checkpoint; the evaluation does not depend on the objective.

    Eagerly, for the time it takes; the test below compiles.
    """
    settings = without_hidden_sizes(small, changes) | {"batch_size": 100, "epochs": 1}
    run(settings, validation_size=0, eager=True)
    (record,) = timeless(small["run_dir"])
    assert np.isfinite(list(record.values())).all() and record["step"] == 3
    assert 50 < record["train_distortion"] + record["train_rate"] < 700


@pytest.mark.parametrize("changes", COMBINATIONS, ids=name_of)
def test_what_is_minimized_is_what_the_flags_say(small, changes):
    """The gradients of the program, against the objective with its settings by hand."""
    config = flags.Config(**without_hidden_sizes(small, changes))
    job = loop.prepare(config, loop.load_data(config, None))
    x, y = job.to_batch(*(part[:20] for part in job.fixed("validation")))
    noise = tf.random.stateless_normal(
        [config.num_samples, 20, sum(config.latents)], [0, 1]
    )
    step_number = tf.constant(3, tf.int64)
    found, grads = loop.make_gradients(job)(job.state.params, x, noise, y, step_number)
    weight = 3 / 15 if "warmup_epochs" in changes else 1.0  # of 15 steps an epoch
    settings = dict(
        objective=changes.get("objective", "elbo"),
        estimator=changes.get("estimator", "standard"),
        kl_weight=weight * changes.get("beta", 1.0),
        free_bits=changes.get("free_bits", 0.0),
    )
    terms, expected = step.loss_and_gradients(
        job.infer, job.state.params, x, noise, y, **settings
    )
    np.testing.assert_allclose(found, terms, rtol=1e-5)
    for grad, other in zip(grads, expected, strict=True):
        np.testing.assert_allclose(grad, other, rtol=1e-4, atol=1e-6)


MODELS_IN_TURN = [
    model | OBJECTIVES[objective]
    for model, objective in zip(MODELS, (0, 1, 2, 3, 0, 3, 2), strict=True)
]


@pytest.mark.parametrize("changes", MODELS_IN_TURN[1:6:2], ids=name_of)
def test_compiled_models_train_and_are_evaluated_as_in_plain_python(small, changes):
    """An epoch of five steps: by XLA, for convolutions as a graph; and what follows."""
    settings = without_hidden_sizes(small, changes) | {"epochs": 1, "batch_size": 60}
    records = []
    for kind in ("jit", "eager"):
        folder = small["run_dir"] + kind
        run(settings, run_dir=folder, importance_samples=3, **{kind: True})
        (evaluation,) = metrics.read(Path(folder) / "evaluations.jsonl")
        records.append(timeless(folder)[0] | evaluation)
    for name in ("train_loss", "gradient_norm", "negative_elbo", "nll"):
        assert records[0][name] == pytest.approx(records[1][name], rel=1e-4), name


@pytest.mark.parametrize("changes", MODELS_IN_TURN, ids=name_of)
def test_every_model_stops_goes_on_and_draws(small, changes, monkeypatch):
    """Two runs, one of them stopped inside an epoch, end in the same bits."""
    monkeypatch.setattr(loop, "BLOCK_SAMPLES", 100)
    monkeypatch.setattr(loop.evaluate, "BLOCKS", 1)  # of 100 samples, for three
    other = small["run_dir"] + "-other"
    settings = without_hidden_sizes(small, changes) | {"epochs": 1, "batch_size": 60}
    settings |= {"eager": True}  # for the time it takes
    with monkeypatch.context() as context:
        context.setattr(loop, "report", lambda job: None)
        run(settings, StopAfter(0))
        assert checkpoint.steps_on_disk(Path(small["run_dir"]))[0] < 5
        run(settings)
    run(settings, run_dir=other, figures=True, importance_samples=3)
    a, b = newest_checkpoint(other), newest_checkpoint(small["run_dir"])
    assert a.keys() == b.keys() and timeless(other) == timeless(small["run_dir"])
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    (record,) = metrics.read(Path(other) / "evaluations.jsonl")
    assert record["given_labels"] == changes.get("conditional", False)
    if "latent_dims" in changes:
        assert len(record["active_units"]) == 2
        assert [len(kls) for kls in record["kl_per_dim"]] == [4, 3]
    assert 50 < record["negative_elbo"] < 700
    assert record["nll"] < record["negative_elbo"] + 5
    assert len(list(Path(other).glob("figures/*.png"))) >= 5


def test_evaluate_and_generate_use_the_runs_own_flags(trained, monkeypatch, capsys):
    short = {"run_dir": trained["run_dir"]}
    run(short, mode="evaluate", figures=False)
    first, second = metrics.read(Path(trained["run_dir"]) / "evaluations.jsonl")
    assert first | {"seconds": 0} == second | {"seconds": 0}
    monkeypatch.setattr(loop, "load_data", None)  # not needed for it
    monkeypatch.setattr(loop, "PICTURED", 4)
    for count, seed in ((7, 0), (7, 1), (1, 0)):
        run(short, mode="generate", num_images=count, seed=seed)
        stem = Path(trained["run_dir"], f"figures/generated_{count}_seed{seed}_step30")
        digits = np.load(stem.with_suffix(".npy"))
        assert digits.shape == (count, 28, 28) and digits.dtype == np.float32
        assert 0 < digits.min() and digits.max() < 1
        assert imread(stem.with_suffix(".png")).std() > 0.05
    output = capsys.readouterr().out
    assert "7 digits" in output and "Picture of the first 4:" in output
    assert len(list(Path(trained["run_dir"]).rglob("*.npy"))) == 3


def test_digits_are_written_whole_or_not_at_all(trained, monkeypatch):
    def full(file, array):
        file.write(b"a beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    short = {"run_dir": trained["run_dir"], "mode": "generate", "num_images": 2}
    run(short)
    (file,) = Path(trained["run_dir"]).rglob("*.npy")
    before = file.read_bytes()
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        run(short)
    assert file.read_bytes() == before


def test_a_conditional_run_generates_the_digit_asked_for(small):
    run(small, conditional=True, epochs=1)
    short = {"run_dir": small["run_dir"], "mode": "generate", "num_images": 3}
    for digit in (7, 2):
        run(short, digit=digit)
    run(short, num_images=10)
    drawn = {p.stem: np.load(p) for p in Path(small["run_dir"]).rglob("*.npy")}
    seven, two = (drawn[f"generated_3_digit{digit}_seed0_step15"] for digit in (7, 2))
    assert not np.allclose(seven, two, atol=1e-3)  # of the same z
    assert len(drawn["generated_10_seed0_step15"]) == 10
    config = flags.Config(**small | {"conditional": True})
    job = loop.prepare(config, None)
    a, b, c, d = loop.prior_samples(job, 0, [3, 3, 3, 4], styles=[0, 0, 1, 1])
    np.testing.assert_array_equal(a, b)  # of one style and one class
    assert not np.allclose(a, c) and not np.allclose(c, d)


def test_labels_beyond_nine_are_no_condition(small, digits, tmp_path):
    train_set, test_set = digits
    labels = train_set.labels.copy()
    labels[0] = 10
    other = write_idx_folder(
        tmp_path / "other", mnist.Digits(train_set.images, labels), test_set
    )
    run(small, data_dir=str(other), epochs=1)
    with pytest.raises(ValueError, match="labels from 0 to 9 for --conditional, got"):
        run(small, data_dir=str(other), run_dir=f"{tmp_path}/c", conditional=True)


# --- Evaluation -----------------------------------------------------------------------


def test_a_run_of_an_earlier_version_goes_on_and_is_evaluated(trained):
    """Its config.json lacks what came later; what it lacks is as it was done before."""
    folder = Path(trained["run_dir"])
    recorded = checkpoint.read_config(folder)
    del recorded["start"], recorded["flags"]["start_from"]
    del recorded["flags"]["bfloat16"]
    checkpoint.write_config(folder, recorded)
    run({"run_dir": trained["run_dir"], "mode": "evaluate"})
    run(trained, epochs=3)
    assert len(timeless(folder)) == 3
    assert checkpoint.read_config(folder)["flags"]["start_from"] == ""


def test_figures_of_some_images_leave_those_of_all_alone(small):
    run(small, epochs=1, figures=True)
    folder = Path(small["run_dir"], "figures")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    short = {"run_dir": small["run_dir"], "mode": "evaluate"}
    run(short, evaluation_images=20)
    run(short, evaluation_split="validation")
    for part in ("test_20", "validation_30"):
        assert {path.name for path in (folder / part).iterdir()} == set(whole)
    assert all((folder / name).read_bytes() == whole[name] for name in whole)


def test_evaluation_takes_a_split_a_subset_and_samples(small, capsys):
    run(small, latent_dim=5)
    short = {"run_dir": small["run_dir"], "mode": "evaluate"}
    run(short, importance_samples=200)
    run(short, importance_samples=200, evaluation_images=20)
    run(short, importance_samples=1, evaluation_split="validation", bfloat16=True)
    _, whole, part, validation = metrics.read(
        Path(small["run_dir"]) / "evaluations.jsonl"
    )
    likelihood = ["nll", "nll_standard_error", "importance_samples", "bfloat16"]
    assert list(whole) == [*EVALUATION[:-1], *likelihood, "seconds"]
    assert [r["images"] for r in (whole, part, validation)] == [60, 20, 30]
    assert [r["split"] for r in (whole, validation)] == ["test", "validation"]
    assert [r["bfloat16"] for r in (whole, validation)] == [False, True]
    assert len(whole["kl_per_dim"]) == 5
    assert sum(whole["kl_per_dim"]) == pytest.approx(whole["rate"])
    assert whole["nll"] < whole["negative_elbo"] - 0.05
    assert 0.5 < whole["nll_standard_error"] < part["nll_standard_error"]
    spread = validation["nll_standard_error"]
    assert abs(validation["nll"] - validation["negative_elbo"]) < spread
    output = capsys.readouterr().out
    assert f"-log p(x)     {whole['nll']:.2f} +- " in output
    assert "Validation -ELBO" in output


@pytest.mark.usefixtures("unreported")
def test_more_samples_may_be_asked_of_a_run_that_goes_on(trained, capsys):
    run(trained, epochs=3, objective="iwae", num_samples=4)
    output = capsys.readouterr().out
    assert "From here on, --objective was elbo and is iwae." in output
    _, first, second = timeless(trained["run_dir"])
    assert first["train_loss"] == pytest.approx(
        first["train_distortion"] + first["train_rate"]
    )
    elbo = second["train_distortion"] + second["train_rate"]
    assert second["train_loss"] < elbo - 1


def test_the_average_of_the_weights_is_what_is_evaluated(small):
    """And what digits are drawn with."""
    run(small, epochs=1, ema_decay=0.5, importance_samples=1)
    found = newest_checkpoint(small["run_dir"])
    name = "{}/decoder/output/b/.ATTRIBUTES/VARIABLE_VALUE"
    average, last = (found[name.format(part)] for part in ("ema", "params"))
    assert not np.array_equal(average, last)
    short = {"run_dir": small["run_dir"], "mode": "generate", "num_images": 1}
    run(short)
    (path,) = Path(small["run_dir"]).rglob("*.npy")
    before = np.load(path)
    path.unlink()
    plain = small["run_dir"] + "-plain"
    run(small, epochs=1, run_dir=plain, importance_samples=1)
    run(short | {"run_dir": plain})
    (path,) = Path(plain).rglob("*.npy")
    assert not np.array_equal(before, np.load(path))
    evaluations = [
        metrics.read(Path(folder) / "evaluations.jsonl")[0]
        for folder in (small["run_dir"], plain)
    ]
    for name in ("negative_elbo", "nll"):
        assert evaluations[0][name] != evaluations[1][name]


# --- Stop and resume ------------------------------------------------------------------


@pytest.mark.usefixtures("unreported")
def test_more_epochs_go_on_from_the_end(trained, straight):
    """Also in a folder that was moved in between."""
    moved = trained["run_dir"] + "-moved"
    Path(trained["run_dir"]).rename(moved)
    run(trained, epochs=3, run_dir=moved)
    assert_same_run(moved, straight)


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("block_images", [20, 140])
def test_a_run_stopped_inside_an_epoch_ends_in_the_same_bits(
    small, straight, monkeypatch, capsys, block_images
):
    monkeypatch.setattr(loop, "BLOCK_SAMPLES", block_images)
    for looks in (1, 2, 3):
        run(small, StopAfter(looks), epochs=3)
    output = capsys.readouterr().out
    assert re.search(r"Stopped and saved. Run: .*, at epoch \d and \d+ of 15", output)
    assert output.count(f"Go on with: {sys.executable} ") == 3
    run(small, epochs=3)
    assert_same_run(small["run_dir"], straight)


def test_checkpoints_that_are_rarer_than_epochs_change_nothing(
    small, straight, monkeypatch, capsys
):
    """Killed at the end of the second epoch, whose checkpoint is not due yet."""
    monkeypatch.setattr(loop.reports, "epoch_line", kill_at(2))
    with pytest.raises(KeyboardInterrupt):
        run(small, epochs=3, checkpoint_every=5)
    assert len(timeless(small["run_dir"])) == 2
    monkeypatch.undo()
    run({"run_dir": small["run_dir"], "mode": "evaluate"}, figures=False)
    assert "Trained       0 epochs, 0 steps, 0.0 s" in capsys.readouterr().out
    run(small, epochs=3, checkpoint_every=2, keep_checkpoints=1)
    assert_same_run(small["run_dir"], straight)


def kill_at(epoch):
    def line(record, epochs):
        if record["epoch"] == epoch:
            raise KeyboardInterrupt
        return ""

    return line


def test_lost_checkpoints_are_not_trained_over(trained):
    for path in Path(trained["run_dir"]).glob("c*kp*t*"):
        path.unlink()
    with pytest.raises(
        ValueError, match="metrics of a run but none of its checkpoints"
    ):
        run(trained, epochs=3)
    with pytest.raises(ValueError, match="none of its checkpoints: put them back"):
        run({"run_dir": trained["run_dir"], "mode": "evaluate"})
    assert len(timeless(trained["run_dir"])) == 2


def test_a_finished_run_only_evaluates_again(trained, capsys):
    before = weights_and_moments(trained["run_dir"])
    run(trained)
    output = capsys.readouterr().out
    assert "Nothing is left to train" in output and "changed or damaged" not in output
    after = weights_and_moments(trained["run_dir"])
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert len(timeless(trained["run_dir"])) == 2
    assert len(metrics.read(Path(trained["run_dir"]) / "evaluations.jsonl")) == 2


@pytest.mark.usefixtures("unreported")
def test_seeds_make_different_runs_and_one_seed_the_same(small, straight, tmp_path):
    run(small, epochs=3)
    assert_same_run(small["run_dir"], straight)
    other = str(tmp_path / "other")
    run(small, epochs=3, seed=1, run_dir=other)
    assert timeless(other) != timeless(straight)


def test_a_killed_run_ends_in_the_same_bits(small, tmp_path):
    """SIGKILL and SIGINT to the real program, against an unkilled one.

    The other one has no home, no reader, no stdin, no stderr, and a locale that cannot
    spell its folder.
    """
    killed, straight = tmp_path / "killed", tmp_path / "stra\u00efght"
    settings = small | {"epochs": 40, "checkpoint_every": 3, "jit": True}
    (tmp_path / "home").write_text("not a folder")
    whole = program(
        *as_arguments(settings | {"run_dir": str(straight)}),
        env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "HOME": f"{tmp_path}/home"},
        by=("sh", "-c", 'exec "$0" "$@" <&- 2>&-'),
    )
    whole.stdout.close()
    arguments = as_arguments(settings | {"run_dir": str(killed)})
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        process = program(*arguments)
        seen = len(timeless(killed))
        while len(timeless(killed)) < seen + 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
        assert (f"Go on with: {sys.executable}" in output) == (number != signal.SIGKILL)
        assert errors == ""
    run(settings, run_dir=str(killed))
    assert whole.wait(timeout=120) == 0
    whole.stderr.close()
    assert_same_run(killed, straight)


@pytest.mark.usefixtures("unreported")
def test_a_run_starts_from_the_weights_of_another(trained, tmp_path, capsys):
    """With a rate of almost 0 they stay; all else is new, and the end the same bits."""
    other, folder = Path(trained["run_dir"]), tmp_path / "new"
    settings = trained | {"run_dir": str(folder), "start_from": str(other)}
    settings |= {"learning_rate": 1e-12, "seed": 1}
    run(settings, StopAfter(0))
    assert f"Weights: those of {other} after 30 steps" in capsys.readouterr().out
    run(settings)
    assert "Weights: those" not in capsys.readouterr().out
    start = {"start_from": str(other), "start_step": 30}
    assert checkpoint.read_config(folder)["start"] == start
    found, before = newest_checkpoint(folder), newest_checkpoint(other)
    for name in found:
        same = np.allclose(found[name], before[name], atol=1e-9)
        assert same == name.startswith("params") or name.startswith("step"), name
    assert [record["step"] for record in timeless(folder)] == [15, 30]
    with pytest.raises(ValueError, match="--start_from"):
        run(settings | {"start_from": ""})


def test_where_a_run_started_is_part_of_its_evaluations(trained, tmp_path, capsys):
    folder = tmp_path / "new"
    run(trained | {"run_dir": str(folder), "start_from": trained["run_dir"]}, epochs=1)
    (record,) = metrics.read(folder / "evaluations.jsonl")
    assert record["start_from"] == trained["run_dir"] and record["start_step"] == 30
    assert "from the weights of" in capsys.readouterr().out


def test_a_run_that_was_killed_at_once_starts_with_the_same_weights(trained, tmp_path):
    """Or not at all, if the other run has gone on meanwhile."""
    settings = trained | {"run_dir": str(tmp_path / "new")}
    settings |= {"start_from": trained["run_dir"]}
    with pytest.MonkeyPatch.context() as context:
        context.setattr(checkpoint, "save", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(settings)
    run(trained, epochs=3)
    with pytest.raises(
        ValueError, match="after 30 steps, and its newest are now those after 45"
    ):
        run(settings)


def test_a_run_starts_from_no_other_model_and_no_empty_folder(trained, tmp_path):
    settings = trained | {"run_dir": str(tmp_path / "new")}
    for start, changes, message in (
        (
            trained["run_dir"],
            {"activation": "tanh"},
            "--activation .the run: relu, now",
        ),
        ("nowhere", {}, "--start_from=nowhere: expected the folder of a trained run"),
    ):
        with pytest.raises(ValueError, match=message):
            run(settings | {"start_from": start} | changes)
        assert not Path(settings["run_dir"]).exists()


@pytest.mark.usefixtures("unreported")
def test_what_is_no_longer_promised_or_there_is_said(trained, capsys):
    folder = Path(trained["run_dir"])
    config = checkpoint.read_config(folder)
    config["versions"]["tensorflow"] = "2.0.0"
    checkpoint.write_config(folder, config)
    history = folder / "metrics.jsonl"
    history.write_text(history.read_text()[:-9])
    run(trained, epochs=3, learning_rate=0.002)
    output = capsys.readouterr().out
    assert "begun with TensorFlow 2.0.0: under" in output
    assert "From here on, --learning_rate was 0.001 and is 0.002." in output
    assert "metrics.jsonl holds 1 of the 2 epochs' records" in output
    assert [record["epoch"] for record in timeless(folder)] == [1, 3]


@pytest.mark.usefixtures("unreported")
def test_a_changed_digit_of_the_metrics_is_seen(trained, capsys):
    history = Path(trained["run_dir"], "metrics.jsonl")
    content = history.read_text()
    at = content.index("train_loss") + 14
    digit = str((int(content[at]) + 1) % 10)
    history.write_text(content[:at] + digit + content[at + 1 :])
    run(trained, epochs=3)
    assert "metrics.jsonl was changed or damaged" in capsys.readouterr().out


def test_a_changed_key_of_the_metrics_is_refused(trained):
    history = Path(trained["run_dir"], "metrics.jsonl")
    history.write_text(history.read_text().replace("seconds", "secnnds", 1))
    with pytest.raises(ValueError, match="line 1 is damaged"):
        run(trained)


def test_one_compilation_serves_the_whole_training(small, tmp_path):
    """However blocks begin and end; and neither TensorFlow nor XLA says a word."""
    script = (
        "import sys, flags, loop; loop.BLOCK_SAMPLES = 80; flags.parse(sys.argv); "
        "sys.exit(loop.main(sys.argv))"
    )
    process = program(
        *as_arguments(small | {"jit": True}),
        script=("-c", script),
        env={"XLA_FLAGS": f"--xla_dump_to={tmp_path}/xla"},
    )
    output, errors = process.communicate(timeout=120)
    assert errors == "" and "Test -ELBO" in output
    blocks = list((tmp_path / "xla").glob("*train_block*before_optimizations.txt"))
    assert len(blocks) == 1


def test_a_folder_in_use_is_refused(trained):
    with files.lock(Path(trained["run_dir"])):
        for mode in ("train", "evaluate", "generate"):
            with pytest.raises(ValueError, match=r"in use by process \d+"):
                run(trained, mode=mode)


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_that_was_begun_meanwhile_is_left_alone(
    small, two_epochs, monkeypatch, ended
):
    """Two start on a new folder; the one that loads its data faster has it."""
    prepare, folder = loop.prepare, Path(small["run_dir"])
    with contextlib.ExitStack() as other:

        def overtaken(*arguments):
            shutil.copytree(two_epochs, folder)
            if not ended:
                other.enter_context(files.lock(folder))
            return prepare(*arguments)

        monkeypatch.setattr(loop, "prepare", overtaken)
        with pytest.raises(
            ValueError, match="began a run there" if ended else "in use"
        ):
            run(small)
    assert_same_run(folder, two_epochs)


# --- Refusals -------------------------------------------------------------------------


def test_a_run_with_other_flags_is_refused(trained):
    with pytest.raises(ValueError, match=r"--latent_dim \(the run: 2, now: 3\)"):
        run(trained, latent_dim=3)


def test_a_run_on_other_data_is_refused(trained, digits, tmp_path):
    train_set, test_set = digits
    images = train_set.images.copy()
    images[0, 0, 0] ^= 1
    other = write_idx_folder(
        tmp_path / "other", mnist.Digits(images, train_set.labels), test_set
    )
    with pytest.raises(ValueError, match="run on other data"):
        run(trained, data_dir=str(other))


@pytest.mark.usefixtures("unreported")
def test_resume_never_and_required(small):
    with pytest.raises(ValueError, match="expected a run to go on from"):
        run(small, resume="required")
    assert not Path(small["run_dir"]).exists()
    run(small, epochs=1, resume="never")
    with pytest.raises(ValueError, match="--resume=never does not overwrite it"):
        run(small, resume="never")
    run(small, resume="required")


@pytest.mark.parametrize("mode", ["evaluate", "generate"])
def test_other_modes_need_a_run(small, mode):
    with pytest.raises(ValueError, match="expected a run to go on from"):
        run(small, mode=mode)
    assert not Path(small["run_dir"]).exists()
    Path(small["run_dir"]).mkdir()  # a folder of something else
    with pytest.raises(ValueError, match="expected a run to go on from"):
        run(small, mode=mode)
    assert not list(Path(small["run_dir"]).iterdir())


def test_a_batch_larger_than_the_data_is_refused(small):
    with pytest.raises(ValueError, match="at most 330 images.*--batch_size=301"):
        run(small, batch_size=301)
    with pytest.raises(ValueError, match="--validation_size=330"):
        run(small, validation_size=330)
    with pytest.raises(ValueError, match="at most 268,435,456 steps"):
        run(small, epochs=10**8)


@pytest.mark.usefixtures("unreported")
def test_a_loss_that_is_not_finite_stops_the_run(trained, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["loop.py", "--learning_rate=1e30", "--epochs=3"])
    before = weights_and_moments(trained["run_dir"])
    message = (
        r"the loss is (nan|inf) at step \d+, epoch 3, learning rate 1e\+30; the first "
        r"variable whose gradient is not finite: (en|de)coder/.*/[wb]\. The checkpoint "
        r"of step 30 is kept; go on from it with: .* loop.py --epochs=3 "
        r"--learning_rate=1e\+29"
    )
    with pytest.raises(ValueError, match=message):
        run(trained, epochs=3, learning_rate=1e30)
    after = weights_and_moments(trained["run_dir"])
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    (Path(trained["run_dir"]) / "ckpt-30.index").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="The checkpoint of step 15 is kept"):
        run(trained, epochs=3, learning_rate=1e30)
    run(trained, epochs=3)


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("validation_size", [0, 30])
def test_ruined_weights_are_not_saved(small, validation_size):
    """One step an epoch: its loss and gradient are finite, what it makes is not."""
    changes = dict(batch_size=300, validation_size=validation_size)
    run(small, epochs=1, **changes)
    with pytest.raises(
        ValueError, match="but the weights are ruined. The checkpoint of"
    ):
        run(small, learning_rate=1e38, **changes)
    assert checkpoint.steps_on_disk(Path(small["run_dir"])) == [1, 0]
    run(small, learning_rate=1e-4, **changes)


def test_auto_falls_back_to_synthetic_digits_and_says_so(small, monkeypatch, capsys):
    def unreachable(*arguments):
        raise ValueError("cannot download x (no network)")

    drawn = synthetic.draw(1, sizes=(330, 60))
    monkeypatch.setattr(mnist, "fetch", unreachable)
    monkeypatch.setattr(synthetic, "draw", lambda: drawn)
    settings = {k: v for k, v in small.items() if k != "data_dir"}
    run(settings)
    output = capsys.readouterr().out
    assert "No MNIST: cannot download x (no network). Using the built-in" in output
    assert re.search(r"Data set +synthetic \(built-in digits, not MNIST\)", output)
    # Later MNIST is there: the run stays with what it was trained on.
    monkeypatch.setattr(mnist, "fetch", lambda *arguments: pytest.fail("asked"))
    run(settings, epochs=3)
    monkeypatch.setattr(mnist, "fetch", unreachable)
    with pytest.raises(ValueError, match="--data_dir=DIR.*--dataset=synthetic"):
        run(settings, dataset="mnist", run_dir=small["run_dir"] + "2")


def test_the_program_says_what_is_wrong_in_one_line(small, tmp_path):
    """Exit code 1, nothing written, no traceback, no TensorFlow chatter."""
    process = program("--help")
    assert "total, resumed ones included" in process.communicate(timeout=60)[0]
    (tmp_path / "file").write_text("mine")
    in_the_way = as_arguments(small | {"run_dir": str(tmp_path / "file")})
    too_large = as_arguments(small | {"hidden_sizes": (10**9,)})
    for arguments, code, message in (
        (in_the_way, 1, "choose another --run_dir"),
        (too_large, 1, "out of memory: choose smaller sizes"),
        (["--epochs=0"], 2, "--epochs=0"),
    ):
        process = program(*arguments)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert output == "" or "Data:" in output
        assert errors.startswith("error: ") and errors.count("\n") == 1
        assert message in errors
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("eager", [False, True])
def test_a_mistake_in_the_code_is_shown_to_a_debugger(small, eager):
    """With --eager it is a traceback that names the line, else one line."""
    script = """if True:
        import runpy, sys
        import tensorflow as tf
        from core import vae
        right = vae.decode
        vae.decode = lambda p, z, *rest: right(p, tf.concat([z, z], -1), *rest)
        runpy.run_path("loop.py", run_name="__main__")
    """
    process = program(
        *as_arguments(small | {"eager": eager}), script=("-c", script), cwd=ROOT
    )
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert ("core/networks.py" in errors and "Traceback" in errors) == eager
    assert any(line.startswith("error: ") for line in errors.split("\n")) != eager


@pytest.mark.parametrize("hang", [False, True])
def test_a_closed_network_costs_at_most_ten_seconds(monkeypatch, tmp_path, hang):
    """Both where nothing answers a name look-up and where it fails at once."""
    assert 2 * mnist.OPEN_SECONDS <= 10  # for two mirrors; the test takes less
    monkeypatch.setattr(mnist, "OPEN_SECONDS", 0.5)

    def look_up(*arguments, **keywords):
        time.sleep(60 if hang else 0)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    start = time.monotonic()
    with pytest.raises(ValueError, match="cannot download"):
        mnist.fetch("mnist", tmp_path)
    assert time.monotonic() - start < 2
