import dataclasses
import json
import os

import pytest

from core import consistency, settings
from core.errors import UserError
from core.settings import Adam, Model, Objective, Settings
from tests.test_flags import OTHER_VALUES


def values_as_text(case):
    """A stable name for a test of values."""
    return " ".join(
        f"{name}={value!r}"
        for part in case
        if isinstance(part, dict)
        for name, value in part.items()
    )


# --- Contradictions -------------------------------------------------------------------

IWAE, GREY = {"objective": "iwae"}, {"binarization": "none"}
DREG = IWAE | {"estimator": "dreg"}
CONV, TWO = {"architecture": "conv"}, {"stochastic_layers": 2}
VAMP, FLOW = {"prior": "vamp"}, {"prior": "flow"}
DRAW = {"mode": "generate"}
MEANINGLESS = [  # but harmless, if it is a default
    ({"eager": True, "jit": True}, "runs without XLA: leave out --jit"),
    (TWO | {"latent_dim": 5}, "--latent_dim is of --stochastic_layers=1"),
    ({"latent_dims": (5, 4)}, "is of --stochastic_layers=2"),
    ({"upper_hidden_sizes": (5,)}, "is of --stochastic_layers=2"),
    (CONV | {"hidden_sizes": (5,)}, "--hidden_sizes is of --architecture=dense"),
    ({"filters": (5, 6)}, "--filters is of --architecture=conv"),
    ({"prior_components": 5}, "is of --prior=mixture or --prior=vamp: give both"),
    (FLOW | {"prior_components": 5}, "--prior_components is of --prior=mixture or"),
    ({"flow_layers": 3}, "--flow_layers is of --prior=flow: give both, or none"),
    (VAMP | {"flow_units": 3}, "--flow_units is of --prior=flow: give both, or none"),
    ({"bfloat16": True}, "give --importance_samples"),
    ({"dataset": "synthetic", "data_dir": "x"}, "is read instead of --dataset"),
    ({"dataset": "auto", "data_dir": "x"}, "no more beside it than mnist: give one"),
    ({"mode": "generate", "z": "1", "num_images": 4}, "leave out some"),
    ({"mode": "generate", "interpolate": "1,2", "temperature": 0.5}, "leave out some"),
    ({"data_dir": ""}, "^--data_dir=: expected the name of a folder"),
    ({"start_from": ""}, "^--start_from=: expected the name of a folder"),
]
PAIR = {"workers": "a:1,b:2"}
CONTRADICTIONS = [
    ({"weight_decay": 500.0}, "give less than 1 of it"),
    (IWAE | {"estimator": "stl"}, "biased for the IWAE bound: use dreg"),
    ({"estimator": "dreg"}, "for the elbo, use stl"),
    (DREG | {"warmup_epochs": 2}, "the unweighted bound"),
    (DREG | {"beta": 2.0}, "for --beta=1 alone"),
    (IWAE | {"beta": 2.0}, "for --beta=1 alone"),
    (IWAE | {"free_bits": 0.1}, "a floor under the KL of each dimension"),
    ({"estimator": "stl", "free_bits": 0.1}, "a floor under the KL of each dimension"),
    (CONV | {"bfloat16": True, "importance_samples": 5}, "of dense networks"),
    (GREY | IWAE, "have no likelihood"),
    (GREY | {"importance_samples": 9}, "have no likelihood"),
    (VAMP | {"conditional": True}, "not made for labels: leave out --conditional"),
    (TWO | VAMP | {"conditional": True}, "not made for labels"),
    (VAMP | {"bfloat16": True, "importance_samples": 5}, "leave out --bfloat16"),
    (FLOW | {"latent_dim": 1}, "half of the dimensions by the other"),
    (TWO | FLOW | {"latent_dims": (5, 1)}, "half of the dimensions by the other"),
    ({"digit": 3, "mode": "generate"}, "trained with --conditional"),
    (DRAW | {"z": "1", "interpolate": "1,2"}, "leave out some"),
    (
        DRAW | {"interpolate": "1,2", "digit": 3, "conditional": True},
        "has its images' labels: leave out --digit",
    ),
    ({"mode": "encode"}, "--images is of --mode=encode, which needs it"),
    (DRAW | {"images": "a.npy"}, "--images is of --mode=encode"),
    (
        {"validation_size": 0, "evaluation_split": "validation"},
        "needs validation images",
    ),
    ({"worker": 1}, "--worker=1: --workers are 1, counted from 0"),
    (PAIR | {"worker": 2}, "--worker=2: --workers are 2"),
    (PAIR | {"devices": "all"}, "--devices are of one process"),
    (PAIR | {"free_bits": 0.1}, "the mean over the whole batch"),
    ({"devices": "2", "free_bits": 0.1}, "the mean over the whole batch"),
]


@pytest.mark.parametrize("case", CONTRADICTIONS, ids=values_as_text)
def test_contradictions_are_refused_with_a_reason(case):
    values, reason = case
    with pytest.raises(UserError, match=reason) as error:
        consistency.check(settings.of_values(values))
    expect_short(error)


def expect_short(error):
    """A message is one line of at most 200 characters."""
    assert len(str(error.value)) <= 200 and "\n" not in str(error.value)


@pytest.mark.parametrize("case", MEANINGLESS, ids=values_as_text)
def test_what_has_no_meaning_is_refused_if_it_was_typed(case):
    values, reason = case
    with pytest.raises(UserError, match=reason) as error:
        consistency.check(settings.of_values(values), {*values})
    expect_short(error)
    consistency.check(settings.of_values(values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"eager": True},
        CONV | {"filters": (5, 6), "jit": False},
        CONV | {"jit": True},  # which a GPU follows
        TWO | {"latent_dims": (5, 4), "upper_hidden_sizes": (5,)},
        {"estimator": "stl", "warmup_epochs": 2, "beta": 0.5},
        DREG | {"num_samples": 5},
        PAIR | {"worker": 1},
        IWAE | {"warmup_epochs": 2},
        GREY | {"free_bits": 0.1, "beta": 2.0},
        {"bfloat16": True, "importance_samples": 5},
        {"mode": "generate", "digit": 0, "conditional": True},
        DRAW | {"num_images": 3, "temperature": 0.5},
        DRAW | {"z": "1,2"},
        DRAW | {"interpolate": "0,3"},
        {"mode": "encode", "images": "a.npy"},
        {"prior": "mixture", "prior_components": 1, "conditional": True},
        {
            "prior": "mixture",
            "latent_dim": 1,
            "bfloat16": True,
            "importance_samples": 5,
        },
        VAMP | {"prior_components": 5, "latent_dim": 1},
        FLOW | {"flow_layers": 1, "flow_units": 1, "conditional": True},
        TWO | FLOW | {"latent_dims": (1, 2)},
        {"evaluation_split": "validation"},
        {"dataset": "mnist", "data_dir": "x"},
        {"start_from": "a", "data_dir": "x", "run_dir": "c"},
    ],
    ids=lambda values: values_as_text([values]),
)
def test_what_goes_together_is_let_through(values):
    consistency.check(settings.of_values(values), {*values})


# --- Beside the settings of an existing run -------------------------------------------


def changed(before, **values):
    return settings.of_values(settings.values_of(before) | values)


PAST = settings.of_values(
    dict(epochs=5, latent_dim=20, hidden_sizes=(400,), activation="relu", seed=3)
    | dict(batch_size=50, learning_rate=1e-3, ema_decay=0.99)
)
RECORDED = json.loads(json.dumps(settings.values_of(PAST)))


def test_what_a_run_keeps_and_what_it_may_change():
    of_model = {field.name for field in dataclasses.fields(Model)}
    kept = {"start_from", "seed", "validation_size", "binarization", "batch_size"}
    assert {*settings.OF_RUN} == kept | {"ema_decay"} | of_model
    assert {*settings.OF_MODEL} == of_model
    assert {*settings.OF_LOSS} == {f.name for f in dataclasses.fields(Objective)}
    of_adam = {f.name for f in dataclasses.fields(Adam)} - {"ema_decay"}
    others = {"jit", "eager", "devices"}
    assert {*consistency.MAY_CHANGE} == {*settings.OF_LOSS, *of_adam} | others


def test_a_new_run_takes_the_settings_as_they_are():
    assert consistency.going_on(None, PAST, set()) is PAST
    eager = changed(PAST, eager=True)
    assert consistency.going_on(None, eager, {"eager"}) is eager
    with pytest.raises(UserError, match="runs without XLA"):
        consistency.going_on(None, eager, {"eager", "jit"})


def test_training_goes_on_with_other_epochs_and_learning_rate():
    now = changed(PAST, epochs=9, learning_rate=1e-4, checkpoint_every=2)
    assert consistency.going_on(PAST, now, {"epochs"}) == now


def test_training_that_goes_on_is_checked():
    now = changed(PAST, estimator="dreg")
    with pytest.raises(UserError, match="for the elbo, use stl"):
        consistency.going_on(PAST, now, set())
    with pytest.raises(UserError, match="--latent_dims is of"):
        consistency.going_on(PAST, PAST, {"latent_dims"})


@pytest.mark.parametrize("name", settings.OF_RUN)
def test_training_refuses_each_setting_that_shapes_the_run(name):
    default = settings.FIELDS[name].default
    other = {
        "binarization": "static",
        "activation": "tanh",
        "architecture": "conv",
        "conditional": True,
        "prior": "flow",
        "ema_decay": 0.9,
        "start_from": "other",
    }.get(name) or ((7, 7) if isinstance(default, tuple) else default + 1)
    other = 2 if name == "stochastic_layers" else other
    now = changed(PAST, **{name: other})
    other = "7,7" if isinstance(other, tuple) else other
    other = os.path.abspath(other) if name == "start_from" else other
    message = (
        rf"--{name} \(the run: .+, now: {other}\); .*another folder, or give the run's"
    )
    with pytest.raises(UserError, match=message):
        consistency.going_on(PAST, now, set())


def test_every_difference_is_listed():
    with pytest.raises(UserError, match="--seed.*--hidden_sizes.*--latent_dim"):
        consistency.going_on(PAST, Settings(), set())


def test_other_modes_take_the_runs_own_settings():
    now = settings.of_values(dict(mode="evaluate", figures=False))
    settled = consistency.going_on(PAST, now, {"mode", "figures"})
    assert settled == changed(PAST, mode="evaluate", figures=False)
    with pytest.raises(UserError, match="--latent_dim"):
        consistency.going_on(PAST, now, {"mode", "latent_dim"})
    past = changed(PAST, eager=True, data_dir="digits")
    settled = consistency.going_on(past, now, {"mode"})
    assert settled.data.data_dir == os.path.abspath("digits") and not settled.run.eager
    other = changed(now, dataset="mnist")
    settled = consistency.going_on(past, other, {"mode", "dataset"})
    assert settled.data.data_dir == "" and settled.data.dataset == "mnist"
    # What the run was asked for says nothing new.
    past = changed(past, dataset="mnist")
    settled = consistency.going_on(past, other, {"mode", "dataset"})
    assert settled.data.data_dir == os.path.abspath("digits")
    here = changed(other, data_dir="here")
    settled = consistency.going_on(past, here, {"mode", "dataset", "data_dir"})
    assert settled.data.data_dir == os.path.abspath("here")
    with pytest.raises(UserError, match="no more beside it than mnist"):
        here = changed(here, dataset="synthetic")
        consistency.going_on(past, here, {"mode", "dataset", "data_dir"})


UNUSED = [
    (mode, name)
    for mode in settings.MODES
    if mode != "compare"  # which goes on with no run
    for name in settings.FIELDS
    if name not in settings.used_by(mode)
]


@pytest.mark.parametrize(("mode", "name"), UNUSED)
def test_a_flag_that_a_mode_does_not_use_is_refused_if_it_is_not_the_runs(mode, name):
    values = {"data_dir": "other"} | OTHER_VALUES
    asked = {"mode": mode} | ({"images": "a.npy"} if mode == "encode" else {})
    typed, other = {*asked, name}, asked | {name: values[name]}
    message = f"^--{name} is not used by --mode={mode}: leave it out"
    for past in (PAST, changed(PAST, data_dir="digits", start_from="start")):
        before = settings.values_of(past)[name]
        with pytest.raises(UserError, match=message) as error:
            consistency.going_on(past, settings.of_values(other), typed)
        expect_short(error)
        its_own = f"(the run has {settings.as_text(before) or 'none'}, not "
        assert (its_own in str(error.value)) == (mode != "train")
        if before != "":
            same = settings.of_values(asked | {name: before})
            if mode == "train":
                same = changed(past, mode=mode)
            consistency.going_on(past, same, typed)
        # What was not typed is a default, which says nothing.
        if mode != "train":
            consistency.going_on(past, settings.of_values(asked), {*asked})


@pytest.mark.parametrize("mode", ["evaluate", "generate"])
def test_several_flags_that_a_mode_does_not_use_are_judged_each_by_itself(mode):
    """A recipe's flag file has many that are the run's own, and a slip beside them."""
    of_run = {n: v for n, v in settings.values_of(PAST).items() if v != ""}
    asked = settings.of_values(of_run | {"mode": mode})
    typed = {*of_run} - {"run_dir"}
    typed -= {"latent_dims", "upper_hidden_sizes", "filters"}  # of other models
    typed -= {"prior_components", "flow_layers", "flow_units"}
    assert consistency.going_on(PAST, asked, typed).model == PAST.model
    slip = changed(asked, learning_rate=3.0)
    with pytest.raises(UserError, match="^--learning_rate is not .*has 0.001, not 3.0"):
        consistency.going_on(PAST, slip, typed)


def test_a_folder_that_is_no_longer_named_is_said():
    now = settings.of_values(dict(mode="export"))
    past = changed(PAST, data_dir="digits")
    with pytest.raises(
        UserError, match=r"--data_dir .*the run has /.*digits, not none"
    ):
        consistency.going_on(past, now, {"mode", "data_dir"})
    with pytest.raises(UserError, match="^--data_dir=: expected the name of a folder"):
        now = changed(now, mode="evaluate")
        consistency.going_on(past, now, {"mode", "data_dir"})


def test_a_new_run_refuses_what_training_does_not_use():
    with pytest.raises(UserError, match="^--digit is not used by --mode=train"):
        now = settings.of_values(dict(digit=3, conditional=True))
        consistency.going_on(None, now, {"digit", "conditional"})
    now = settings.of_values(dict(digit=-1))
    assert consistency.going_on(None, now, {"digit"}) is now


def test_the_run_is_the_one_in_the_folder_that_was_asked_for():
    """A folder may have been moved since its run was begun."""
    now = settings.of_values(dict(mode="evaluate", run_dir="moved"))
    assert consistency.going_on(PAST, now, {"mode"}).run.run_dir == "moved"
    with pytest.raises(UserError, match="^moved holds a run with other flags"):
        consistency.going_on(PAST, changed(Settings(), run_dir="moved"), set())


@pytest.mark.parametrize("mode", ["evaluate", "generate"])
def test_a_trained_run_may_be_looked_at_with_another_seed(mode):
    """By that of another run, both are evaluated on the same pixels."""
    now = settings.of_values(dict(mode=mode, seed=8))
    assert consistency.going_on(PAST, now, {"mode", "seed"}).run.seed == 8
    with pytest.raises(UserError, match=r"--seed \(the run: 3, now: 8\)"):
        consistency.going_on(PAST, changed(now, mode="train"), set())


def test_a_comparison_goes_on_with_no_run():
    now = settings.of_values(dict(mode="compare", runs="a,b", seed=8))
    assert consistency.going_on(None, now, {"mode", "runs", "seed"}) == now
    with pytest.raises(UserError, match="^--epochs is not .*compare: leave it out$"):
        consistency.going_on(None, changed(now, epochs=7), {"mode", "epochs"})


def test_a_digit_needs_a_conditional_run():
    now = settings.of_values(dict(mode="generate", digit=7))
    with pytest.raises(UserError, match="trained with --conditional"):
        consistency.going_on(PAST, now, {"mode", "digit"})
    past = changed(PAST, conditional=True)
    assert consistency.going_on(past, now, {"mode", "digit"}).show.digit == 7


def test_a_record_of_an_earlier_version_has_defaults_for_its_younger_settings():
    assert settings.from_record(RECORDED, "run") == PAST
    older = {name: value for name, value in RECORDED.items() if name != "bfloat16"}
    assert settings.from_record(older, "run") == PAST


@pytest.mark.parametrize(
    "change",
    [
        {"a_later_flag": 1},
        {"epochs": "3"},
        {"epochs": None},
        {"hidden_sizes": [400, "30"]},
        {"hidden_sizes": 400},
        {"activation": {}},
        {"jit": 1},
        {"beta": "1"},
    ],
    ids=lambda change: values_as_text([change]),
)
def test_a_record_of_something_else_is_refused(change):
    with pytest.raises(UserError, match="run: expected the flags of a run .*version"):
        settings.from_record(RECORDED | change, "run")


def test_changes_of_the_numbers_are_listed():
    now = changed(PAST, learning_rate=0.5, figures=False, epochs=9)
    assert consistency.changes(PAST, now) == ["--learning_rate was 0.001 and is 0.5"]
    now = changed(PAST, learning_rate_schedule="cosine", epochs=9)
    assert len(consistency.changes(PAST, now)) == 2
    alone, pair, moved = (changed(PAST, workers=w) for w in ("", "a:1,b:2", "c:3,d:4"))
    assert consistency.changes(alone, pair) == ["--workers was none and is a:1,b:2"]
    assert consistency.changes(pair, moved) == []
    assert consistency.changes(PAST, PAST) == consistency.changes(None, now) == []
