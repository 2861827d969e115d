"""The whole program: what it trains, what it leaves, what it measures and draws."""

import errno
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.image import imread

import loop
from core import numerics, rng
from core import settings as settings_of
from core.data import batches, datasets
from core.data.digits import Digits
from core.errors import UserError
from core.evaluation import likelihood
from core.model import networks
from core.model.build import build
from core.run import checkpoint, config, metrics
from core.run.folder import RunFolder
from core.run.process import NoStop
from core.settings import Adam, Data, Model, Run, Settings, Training
from core.show import gallery
from core.training import adam, schedules
from core.training import state as states
from tests.conftest import run, write_idx_folder
from tests.runs import (
    StopAfter,
    assert_same_numbers,
    assert_same_run,
    newest_checkpoint,
    timeless,
    weights_and_moments,
)

METRICS = (
    "epoch step seconds train_loss train_distortion train_rate gradient_norm "
    "learning_rate kl_weight validation_loss validation_distortion validation_rate"
).split()
EVALUATION = (
    "epoch step checkpoint objective num_samples estimator beta prior program split "
    "dataset binarization seed given_labels images negative_elbo distortion rate "
    "kl_samples active_units kl_per_dim knn_accuracy linear_accuracy seconds "
    "kl_weight file"
).split()


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
    kept = json.loads((folder / "config.json").read_text())
    assert kept["flags"]["batch_size"] == 20
    assert kept["versions"]["tensorflow"] == tf.__version__
    assert len(kept["dataset"]["sha256"]) == 64
    assert kept["dataset"]["classes"] == list(range(10))
    assert kept["versions"]["program"] == evaluation["program"]
    pictures = sorted(path.name for path in (folder / "figures").iterdir())
    names = (
        "interpolations latent_space learning_curves manifold reconstructions samples"
    )
    assert pictures == ["explorer.html", *(f"{name}.png" for name in names.split())]
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
    {"objective": "iwae", "num_samples": 3, "ema_decay": 0.0},
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
def test_what_is_minimized_is_what_the_flags_say(small, changes, monkeypatch):
    """The gradients of the program, against the objective with its settings by hand."""
    settings = settings_of.of_values(without_hidden_sizes(small, changes))
    data = datasets.load(settings.data, None)
    model = build(settings.model)
    state = states.init(model.init(0), settings.adam)
    state.step.assign(3)
    shape = batches.noise_shape(model, settings.objective, 20, 15)
    noise = batches.noise(0, 3, shape)
    epoch = batches.epoch(data, model, 20, 0, 0)
    batch = batches.batch(batches.block(epoch, 3, noise, 1), 0)
    assert batch.noise.shape[0] == changes.get("num_samples", 1)
    assert (batch.y is not None) == changes.get("conditional", False)
    weight = 3 / 15 if "warmup_epochs" in changes else 1.0  # of 15 steps an epoch
    by_hand = settings_of.Objective(
        objective=changes.get("objective", "elbo"),
        estimator=changes.get("estimator", "standard"),
        free_bits=changes.get("free_bits", 0.0),
    )
    kl_weight = weight * changes.get("beta", 1.0)
    losses, expected = loop.loss_and_gradients(
        model, state.params, batch, by_hand, kl_weight
    )
    taken = []  # the gradients that Adam is given
    monkeypatch.setattr(adam, "apply", lambda state, grads, *rest: taken.append(grads))
    horizon = schedules.horizon(settings.objective, settings.training.epochs, 15)
    measures, squares = loop.train_step(
        model, state, batch, settings.objective, settings.adam, horizon
    )
    norms = [np.linalg.norm(grad) for grad in expected]
    found = [*losses, np.linalg.norm(norms)]
    np.testing.assert_allclose(measures, found, rtol=1e-5)
    np.testing.assert_allclose(squares, np.square(norms), rtol=1e-4, atol=1e-9)
    (grads,) = taken
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
    del settings["jit"]  # the default compiles
    records = []
    for eager in (False, True):
        folder = f"{small['run_dir']}-{eager}"
        run(settings, run_dir=folder, importance_samples=3, eager=eager)
        (evaluation,) = metrics.read(Path(folder) / "evaluations.jsonl")
        records.append(timeless(folder)[0] | evaluation)
    for name in ("train_loss", "gradient_norm", "negative_elbo", "nll"):
        assert records[0][name] == pytest.approx(records[1][name], rel=1e-4), name


@pytest.mark.parametrize("changes", MODELS_IN_TURN, ids=name_of)
def test_every_model_stops_goes_on_and_draws(small, changes, monkeypatch):
    """Two runs, one of them stopped inside an epoch, end in the same bits."""
    monkeypatch.setattr(numerics, "BLOCK_SAMPLES", 100)
    monkeypatch.setattr(numerics, "CALLS", 1)  # of 100 samples, for three
    other = small["run_dir"] + "-other"
    settings = without_hidden_sizes(small, changes) | {"epochs": 1, "batch_size": 60}
    settings |= {"eager": True}  # for the time it takes
    with monkeypatch.context() as context:
        context.setitem(loop.MODES, "train", (lambda *job: None, "evaluation"))
        run(settings, StopAfter(0))
        assert checkpoint.steps_on_disk(Path(small["run_dir"]))[0] < 5
        run(settings)
    run(settings, run_dir=other, figures=True, importance_samples=3)
    a, b = newest_checkpoint(other), newest_checkpoint(small["run_dir"])
    assert_same_numbers(a, b)
    assert timeless(other) == timeless(small["run_dir"]) != []
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
    monkeypatch.setattr(datasets, "load", None)  # not needed for it
    monkeypatch.setattr(gallery, "PICTURED", 4)
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
    def full(model, weights, key, labels, rows, temperature):
        if min(rows):
            raise OSError(errno.ENOSPC, "No space left on device")
        return np.zeros([len(rows), 28, 28], np.float32)

    short = {"run_dir": trained["run_dir"], "mode": "generate", "num_images": 2}
    run(short)
    (file,) = Path(trained["run_dir"]).rglob("*.npy")
    before = file.read_bytes()
    monkeypatch.setattr(gallery, "AT_ONCE", 1)
    monkeypatch.setattr(gallery, "prior_samples", full)
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
    model = build(settings_of.Model(hidden_sizes=(8,), conditional=True))
    key = rng.key(0, rng.Stream.SAMPLE, 0)
    labels, styles = [3, 3, 3, 4], np.array([0, 0, 1, 1])
    a, b, c, d = gallery.prior_samples(model, model.init(0), key, labels, styles)
    np.testing.assert_array_equal(a, b)  # of one style and one class
    assert not np.allclose(a, c) and not np.allclose(c, d)


def test_labels_beyond_nine_are_no_condition(small, digits, tmp_path):
    train_set, test_set = digits
    labels = train_set.labels.copy()
    labels[0] = 10
    other = write_idx_folder(
        tmp_path / "other", Digits(train_set.images, labels), test_set
    )
    run(small, data_dir=str(other), epochs=1)
    with pytest.raises(UserError, match="labels from 0 to 9 for --conditional, got"):
        run(small, data_dir=str(other), run_dir=f"{tmp_path}/c", conditional=True)


@pytest.mark.usefixtures("unreported")
def test_an_epoch_in_which_the_process_was_stopped_says_so(small, capsys):
    """No clock leaves that time out."""

    class Stopped(NoStop):
        epochs = iter([{"paused": True}, {}])

        def pauses(self):
            return next(self.epochs)

    run(small, Stopped())
    first, second = metrics.read(Path(small["run_dir"]) / "metrics.jsonl")
    assert first["paused"] is True and "paused" not in second
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.endswith(" s, with a pause in it")]
    assert line.startswith("epoch 1/2")


# --- From Python ----------------------------------------------------------------------


def test_what_python_asks_of_a_trained_run_is_done(trained, capsys):
    """The run's own count for all else, as on the command line."""
    folder, digits = trained["run_dir"], Path(trained["run_dir"], "figures")
    show = settings_of.Show(num_images=np.int64(3), temperature=0.5)
    asked = settings_of.Run(mode="generate", run_dir=Path(folder), seed=5)
    loop.run(settings_of.Settings(asked, show=show))
    (made,) = digits.glob("generated_3_temperature0.5_seed5_step30.npy")
    assert np.load(made).shape == (3, 28, 28)
    evaluation = settings_of.Evaluation(importance_samples=3, evaluation_images=20)
    asked = settings_of.Run(mode="evaluate", run_dir=folder, figures=False)
    loop.run(settings_of.Settings(asked, evaluation=evaluation))
    assert "20 of 60 test images" in (said := capsys.readouterr().out)
    assert "(3 importance samples)" in said


# --- Evaluation -----------------------------------------------------------------------


def test_figures_that_cannot_be_drawn_cost_no_number(trained, monkeypatch, capsys):
    """The same command draws them later, and computes -log p(x) once."""
    figures = Path(trained["run_dir"], "figures")
    figures.write_text("in the way")
    short = {"run_dir": trained["run_dir"], "mode": "evaluate", "figures": True}
    with pytest.raises(UserError, match=r"^not written: learning_curves.png, .*html; "):
        run(short, importance_samples=3)
    output, errors = capsys.readouterr()
    *_, record = metrics.read(Path(trained["run_dir"]) / "evaluations.jsonl")
    assert f"-log p(x)     {record['nll']:.2f} +- " in output
    assert errors.count(" cannot be written: ") == errors.count("\n") == 7
    figures.unlink()
    monkeypatch.setattr(likelihood, "log_marginal", None)
    run(short, importance_samples=3)
    *_, again = metrics.read(Path(trained["run_dir"]) / "evaluations.jsonl")
    assert again | {"seconds": 0} == record | {"seconds": 0}
    assert len(list(figures.iterdir())) == 7


def test_a_warm_up_that_is_longer_than_the_run_is_said(small, capsys):
    run(small, warmup_epochs=50, beta=0.5, epochs=1)
    (record,) = metrics.read(Path(small["run_dir"]) / "evaluations.jsonl")
    assert record["kl_weight"] == pytest.approx(0.5 * 14 / (50 * 15))
    assert record["beta"] == 0.5
    output = capsys.readouterr().out
    assert "1 epoch, 15 steps" in output and "KL weight only 0.00933 at" in output


def test_a_run_that_lacks_younger_flags_goes_on_and_is_evaluated(trained):
    """What its config.json lacks is as it was done before."""
    folder = Path(trained["run_dir"])
    recorded = config.read(folder)
    del recorded["flags"]["start_from"], recorded["flags"]["bfloat16"]
    config.write(folder, recorded)
    run({"run_dir": trained["run_dir"], "mode": "evaluate"})
    run(trained, epochs=3)
    assert len(timeless(folder)) == 3
    assert config.read(folder)["flags"]["start_from"] == ""


def test_figures_of_some_images_leave_those_of_all_alone(small):
    run(small, epochs=1, figures=True)
    folder = Path(small["run_dir"], "figures")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    short = {"run_dir": small["run_dir"], "mode": "evaluate"}
    run(short, evaluation_images=20)
    run(short, evaluation_split="validation")
    for part in ("test_20", "validation_30"):
        names = {path.name for path in (folder / part).iterdir()}
        assert names == set(whole) - {"explorer.html"}
    assert all((folder / name).read_bytes() == whole[name] for name in whole)


def test_evaluation_takes_a_split_a_subset_and_samples(small, capsys):
    run(small, latent_dim=5)
    short = {"run_dir": small["run_dir"], "mode": "evaluate"}
    run(short, importance_samples=200)
    run(short, importance_samples=200, evaluation_images=20)
    run(
        short,
        importance_samples=1,
        evaluation_split="validation",
        bfloat16=True,
        jit=True,
    )
    _, whole, part, validation = metrics.read(
        Path(small["run_dir"]) / "evaluations.jsonl"
    )
    likelihood = ["nll", "nll_standard_error", "importance_samples", "bfloat16"]
    assert list(whole) == [*EVALUATION[:-3], *likelihood, *EVALUATION[-3:]]
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
    average, last = (found[name.format(part)] for part in ("average", "params"))
    assert not np.array_equal(average, last)
    short = {"run_dir": small["run_dir"], "mode": "generate", "num_images": 1}
    run(short)
    (path,) = Path(small["run_dir"]).rglob("*.npy")
    before = np.load(path)
    path.unlink()
    plain = small["run_dir"] + "-plain"
    run(small, epochs=1, ema_decay=0.0, run_dir=plain, importance_samples=1)
    run(short | {"run_dir": plain})
    (path,) = Path(plain).rglob("*.npy")
    assert not np.array_equal(before, np.load(path))
    evaluations = [
        metrics.read(Path(folder) / "evaluations.jsonl")[0]
        for folder in (small["run_dir"], plain)
    ]
    for name in ("negative_elbo", "nll"):
        assert evaluations[0][name] != evaluations[1][name]
    (averaged,), (last,) = timeless(small["run_dir"]), timeless(plain)
    assert averaged["train_loss"] == last["train_loss"]
    assert averaged["validation_loss"] != last["validation_loss"]


# --- From Python ----------------------------------------------------------------------


def test_ten_lines_of_python_train_without_a_folder(
    digits, two_epochs, monkeypatch, tmp_path
):
    """They train as the program does, in the same bits, and leave nothing on disk."""
    monkeypatch.chdir(tmp_path)
    train_set, test_set = (Digits(*map(np.array, part)) for part in digits)  # uint8
    settings = Settings(
        run=Run(jit=False),
        data=Data(validation_size=30),
        model=Model(hidden_sizes=(8,), activation="relu"),
        training=Training(epochs=2, batch_size=20),
        adam=Adam(1e-3, "constant", ema_decay=0.9),
    )
    data = datasets.split("mine", train_set, test_set, settings.data)
    model = build(settings.model)
    params = model.init(settings.run.seed, batches.mean_pixel(data.train.pixels))
    state = states.init(params, settings.adam)
    loop.train(model, state, data, settings)
    assert int(state.step) == 30 and not list(tmp_path.iterdir())
    kept = weights_and_moments(two_epochs)
    for part in ("params", "m", "v", "average"):
        for name, variable in networks.named_variables(getattr(state, part), part):
            there = kept[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]
            np.testing.assert_array_equal(variable, there, err_msg=name)


def test_a_run_begun_from_python_is_kept_as_the_programs(small, two_epochs, capsys):
    """The program then goes on with it and evaluates it."""
    settings = settings_of.of_values(small)
    data = datasets.load(settings.data, None)
    model = build(settings.model)
    params = model.init(settings.run.seed, batches.mean_pixel(data.train.pixels))
    state = states.init(params, settings.adam)
    with RunFolder(settings.run) as folder:
        folder.restore(state)
        folder.begin(settings_of.values_of(settings), data.record, [])
        loop.train(model, state, data, settings, folder)
    assert_same_run(small["run_dir"], two_epochs)
    capsys.readouterr()
    run(small)
    assert "Nothing is left to train" in capsys.readouterr().out
    mine, other = (
        metrics.read(Path(folder) / "evaluations.jsonl")[0] | {"seconds": 0}
        for folder in (small["run_dir"], two_epochs)
    )
    assert mine == other
