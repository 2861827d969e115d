import dataclasses

import pytest

from core import rng, settings
from core.errors import UserError
from core.settings import (
    Adam,
    Data,
    Evaluation,
    Model,
    Objective,
    Run,
    Settings,
    Show,
    Training,
)

NAN, INF = float("nan"), float("inf")


def values_as_text(case):
    """A stable name for a test of a record and its values, or of values alone."""
    return "-".join(
        part.__name__
        if isinstance(part, type)
        else " ".join(f"{name}={value!r}" for name, value in part.items())
        for part in case
        if isinstance(part, (type, dict))
    )


# --- Records --------------------------------------------------------------------------


def test_every_setting_has_one_place():
    names = [f.name for group in Settings() for f in dataclasses.fields(group)]
    assert len(names) == len(set(names)) and [*settings.FIELDS] == names


def test_values_become_settings_and_settings_values():
    values = settings.values_of(Settings())
    assert values == {name: field.default for name, field in settings.FIELDS.items()}
    changed = {"seed": 3, "hidden_sizes": (7,), "beta1": 0.5, "digit": 2, "jit": False}
    found = settings.of_values(changed)
    assert found == Settings()._replace(
        run=Run(seed=3, jit=False),
        model=Model(hidden_sizes=(7,)),
        adam=Adam(beta1=0.5),
        show=Show(digit=2),
    )
    assert settings.values_of(found) == values | changed
    assert settings.of_values(settings.values_of(found)) == found


def test_a_value_without_a_setting_is_refused():
    """A misspelled name from Python must not leave the default where it is."""
    with pytest.raises(UserError, match="learning_rat\\b"):
        settings.of_values({"learning_rat": 1e-4})


def test_a_users_mistake_is_an_exception_of_its_own():
    """What catches it must not catch mistakes in the code."""
    assert UserError.__bases__ == (Exception,)


def test_records_can_be_compared_hashed_and_not_changed():
    """So that `tf.function` may have them as arguments, and traces once."""
    for group in Settings():
        same = type(group)()
        assert group == same and hash(group) == hash(same)
        name = dataclasses.fields(group)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(group, name, getattr(group, name))
    with pytest.raises(UserError, match="--beta=-1"):
        dataclasses.replace(Objective(), beta=-1)


WHOLE = {  # name -> (record, least, most)
    "seed": (Run, 0, 2**31 - 1),
    "checkpoint_every": (Run, 1, 10**9),
    "keep_checkpoints": (Run, 1, 10**9),
    "validation_size": (Data, 0, 10**9),
    "epochs": (Training, 1, 2**28),
    "batch_size": (Training, 1, 10**9),
    "latent_dim": (Model, 1, 10**9),
    "stochastic_layers": (Model, 1, 2),
    "num_samples": (Objective, 1, 100_000),
    "warmup_epochs": (Objective, 0, 2**28),
    "importance_samples": (Evaluation, 0, 10**9),
    "evaluation_images": (Evaluation, 0, 10**9),
    "num_images": (Show, 1, 10**7),
    "digit": (Show, -1, 9),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_has_bounds(name):
    record, least, most = WHOLE[name]
    for value in (least, most):
        assert getattr(record(**{name: value}), name) == value
    for value in (least - 1, most + 1, float(most), 1.5, str(most), True, None, NAN):
        with pytest.raises(UserError, match=f"^--{name}=.*: expected a whole number"):
            record(**{name: value})


def test_seeds_and_epochs_have_random_numbers():
    assert settings.MAX_SEED == rng.MAX_SEED and settings.MAX_EPOCHS == rng.MAX_INDEX


NUMBERS = {  # name -> (record, numbers that work, numbers that do not)
    "beta": (Objective, (0, 0.0, 1e30), (-1e-9, INF)),
    "free_bits": (Objective, (0, 0.0, 1e30), (-1e-9, INF)),
    "epsilon": (Adam, (0, 0.0, 1e30), (-1e-9, INF)),
    "clip_norm": (Adam, (0, 0.0, 1e30), (-1e-9, INF)),
    "learning_rate": (Adam, (1, 1e-30, 1e30), (0, 0.0, -1e-9, INF)),
    "beta1": (Adam, (0, 0.0, 0.999999), (1, 1.0, -1e-9, INF)),
    "beta2": (Adam, (0, 0.0, 0.999999), (1, 1.0, -1e-9, INF)),
    "ema_decay": (Adam, (0, 0.0, 0.999999), (1, 1.0, -1e-9, INF)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_has_bounds(name):
    record, works, fails = NUMBERS[name]
    for value in works:
        assert getattr(record(**{name: value}), name) == value
    for value in (*fails, NAN, -INF, "0.5", None, True, (0.5,)):
        with pytest.raises(UserError, match=f"^--{name}=.*: expected a .*number"):
            record(**{name: value})


CHOICES = {
    "mode": (Run, "train evaluate generate"),
    "resume": (Run, "auto never required"),
    "dataset": (Data, "auto mnist fashion_mnist synthetic"),
    "binarization": (Data, "dynamic static threshold none"),
    "architecture": (Model, "dense conv"),
    "activation": (Model, "relu tanh gelu silu"),
    "objective": (Objective, "elbo iwae"),
    "estimator": (Objective, "standard stl dreg"),
    "learning_rate_schedule": (Adam, "constant cosine"),
    "evaluation_split": (Evaluation, "test validation"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_of_those_that_there_are(name):
    record, choices = CHOICES[name]
    assert settings.FIELDS[name].metadata["choices"] == tuple(choices.split())
    for value in choices.split():
        assert getattr(record(**{name: value}), name) == value
    for value in ("", "other", choices.split()[0].upper(), None, 0, ["auto"]):
        with pytest.raises(UserError, match=f"^--{name}=.*: expected one of"):
            record(**{name: value})


SIZES = {"hidden_sizes": 0, "upper_hidden_sizes": 0, "filters": 2, "latent_dims": 2}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_a_tuple_of_positive_whole_numbers(name):
    for value in {(1, 10**9), (5,) * (SIZES[name] or 4)}:
        assert getattr(Model(**{name: value}), name) == value
    wrong = [(), (0, 5), (5, -1), (5, 5.0), (5, True), (5, 10**9 + 1), [5, 5], (5, "5")]
    wrong += [(5,), (5, 5, 5)] if SIZES[name] else []
    for value in [*wrong, "5,5", 5, None]:
        with pytest.raises(UserError, match=f"^--{name}=.*: expected .*positive sizes"):
            Model(**{name: value})


SWITCHES = {"jit": Run, "eager": Run, "figures": Run}
SWITCHES |= {"conditional": Model, "bfloat16": Evaluation}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_true_or_false(name):
    for value in (True, False):
        assert getattr(SWITCHES[name](**{name: value}), name) is value
    for value in (0, 1, "true", None):
        with pytest.raises(UserError, match=f"^--{name}=.*: expected true or false"):
            SWITCHES[name](**{name: value})


def test_a_folder_that_checkpoints_are_in_is_no_pattern():
    assert Run(run_dir="ä b/.c", start_from="").start_from == ""
    for name in ("run_dir", "start_from"):
        for value in ("a*", "a?", "a[1]", "a\\b", "a\0b", None, 5):
            with pytest.raises(UserError, match=f"^--{name}=.*: expected a folder's"):
                Run(**{name: value})
    with pytest.raises(UserError, match="^--run_dir="):
        Run(run_dir="")


def test_a_folder_of_images_may_have_any_name():
    """TensorFlow, which takes names for patterns, does not read them."""
    assert Data(data_dir="").data_dir == ""
    assert Data(data_dir="digits [1]").data_dir == "digits [1]"
    for value in (None, 5):
        with pytest.raises(UserError, match="^--data_dir="):
            Data(data_dir=value)


def test_every_setting_is_tried_above():
    tried = {*WHOLE, *NUMBERS, *CHOICES, *SIZES, *SWITCHES}
    assert tried | {"run_dir", "start_from", "data_dir"} == {*settings.FIELDS}


def test_latents_are_of_one_layer_or_two():
    assert Model(latent_dim=7).latents == (7,)
    assert Model(stochastic_layers=2, latent_dims=(9, 4)).latents == (9, 4)


def test_values_are_shown_as_on_the_command_line():
    assert settings.as_text((512, 256)) == "512,256"
    assert settings.as_text(1e-3) == "0.001" and settings.as_text("") == "none"
