import dataclasses
import os

import numpy as np
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
    "logical_cpus": (Run, 1, 64),
    "worker": (Run, 0, 10**9),
    "keep_checkpoints": (Run, 1, 10**9),
    "validation_size": (Data, 0, 10**9),
    "epochs": (Training, 1, 2**28),
    "batch_size": (Training, 1, 10**9),
    "latent_dim": (Model, 1, 10**9),
    "stochastic_layers": (Model, 1, 2),
    "prior_components": (Model, 1, 10**9),
    "flow_layers": (Model, 1, 1000),
    "flow_units": (Model, 1, 10**9),
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
    expected = f"expected a whole number from {least} to {most:,}$"
    for value in (least - 1, most + 1, float(most), 1.5, str(most), True, None, NAN):
        with pytest.raises(UserError, match=f"^--{name}=.*: {expected}"):
            record(**{name: value})


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [3 * 10**9, 2**63, 10**23], ids=["9", "63", "23"])
def test_a_count_that_no_machine_holds_is_refused_by_its_name(name, value):
    with pytest.raises(UserError, match=f"^--{name}={value}: expected a whole number"):
        WHOLE[name][0](**{name: value})


def test_every_count_has_an_upper_bound():
    counts = {n for n, field in settings.FIELDS.items() if type(field.default) is int}
    assert counts == {*WHOLE}


def test_seeds_and_epochs_have_random_numbers():
    assert settings.MAX_SEED == rng.MAX_SEED and settings.MAX_EPOCHS == rng.MAX_INDEX


HELD = (1, 1.2e-38, 1e-30, 1e30, 3.4e38)  # by float32
NOT_HELD = (-1e-9, 1e-50, 1e-40, 3.5e38, 1e39, 1e300, INF)
NOT_BELOW_ONE = (1, 1.0, 0.99999999, 1 - 1e-16, 2, -1e-9, INF)
NUMBERS = {  # name -> (record, numbers that work, numbers that do not)
    "beta": (Objective, (0, 0.0, *HELD), NOT_HELD),
    "free_bits": (Objective, (0, 0.0, *HELD), NOT_HELD),
    "temperature": (Show, (0, 0.0, *HELD), NOT_HELD),
    "epsilon": (Adam, HELD, (0, 0.0, *NOT_HELD)),
    "clip_norm": (Adam, (0, 0.0, *HELD), NOT_HELD),
    "weight_decay": (Adam, (0, 0.0, *HELD), NOT_HELD),
    "learning_rate": (Adam, HELD, (0, 0.0, *NOT_HELD)),
    "beta1": (Adam, (0, 0.0, 0.9999999), NOT_BELOW_ONE),
    "beta2": (Adam, (0, 0.0, 0.9999999), NOT_BELOW_ONE),
    "ema_decay": (Adam, (0, 0.0, 0.9999999), NOT_BELOW_ONE),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_has_bounds(name):
    record, works, fails = NUMBERS[name]
    for value in works:
        assert getattr(record(**{name: value}), name) == value
        assert np.isfinite(np.float32(value)) and bool(np.float32(value)) == bool(value)
    expected = r"expected (0 or )?a number from \S+ to \S+$"
    for value in (*fails, NAN, -INF, "0.5", None, True, (0.5,)):
        with pytest.raises(UserError, match=f"^--{name}=.*: {expected}"):
            record(**{name: value})


def test_every_number_has_bounds():
    numbers = {n for n, f in settings.FIELDS.items() if type(f.default) is float}
    assert numbers == {*NUMBERS}


CHOICES = {
    "mode": (Run, "train evaluate generate report explore compare encode export"),
    "resume": (Run, "auto never required"),
    "dataset": (Data, "auto mnist fashion_mnist synthetic"),
    "binarization": (Data, "dynamic static threshold none"),
    "architecture": (Model, "dense conv"),
    "prior": (Model, "standard mixture vamp flow"),
    "activation": (Model, "gelu relu tanh silu"),
    "objective": (Objective, "elbo iwae"),
    "estimator": (Objective, "standard stl dreg"),
    "learning_rate_schedule": (Adam, "inverse_sqrt constant cosine"),
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


SWITCHES = {"jit": Run, "eager": Run, "figures": Run, "film": Run}
SWITCHES |= {"conditional": Model, "bfloat16": Evaluation}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_true_or_false(name):
    for value in (True, False):
        assert getattr(SWITCHES[name](**{name: value}), name) is value
    for value in (0, 1, "true", None):
        with pytest.raises(UserError, match=f"^--{name}=.*: expected true or false"):
            SWITCHES[name](**{name: value})


TEXTS = {  # name -> texts that work, texts that do not
    "z": (
        ("0", "0.5,-1.2", "-.5,3", "1," * 99 + "1"),
        ("a", "1,", "1e3", "nan", "1;2"),
    ),
    "interpolate": (("0,1", "12,7"), ("1", "1,-2", "1,2,3", "1.0,2", "1, 2", "१,२")),
    "devices": (("1", "all", "16"), ("0", "-1", "two", "1.5", "all\n", "२")),
    "workers": (
        ("a:1,b:2", "127.0.0.1:20,c.d:4,e-f:65535"),
        ("a:1", "a,b", "a:1,b", "a:1, b:2", "a:1,b:2,", ",", "a:b,c:d"),
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_numbers_are_written_as_their_form_says(name):
    right, wrong = TEXTS[name]
    record = Run if name in ("devices", "workers") else Show
    for value in ("", *right):
        assert getattr(record(**{name: value}), name) == value
    for value in (*wrong, (1, 2), None, 3):
        with pytest.raises(UserError, match=f"(?s)^--{name}=.*: expected text as in "):
            record(**{name: value})


FOLDERS = {"run_dir": Run, "start_from": Run, "data_dir": Data, "images": Show}
NO_FOLDERS = ("--epochs=3", "-x", "-", "http://a.org/b", "s3://a", "file:///a", "a\0b")
NO_FOLDERS += ("~nobody.at.all", "~nobody.at.all/a", None, 5)
EXPECTED = "expected the name of a folder on this machine"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_the_name_of_one(name):
    """A flag that was swallowed, a URL and the home of nobody are none."""
    for value in NO_FOLDERS:
        with pytest.raises(UserError, match=f"^--{name}=.*: {EXPECTED}"):
            FOLDERS[name](**{name: value})


def test_a_folder_that_checkpoints_are_in_is_no_pattern():
    assert Run(run_dir="ä b/.c", start_from="").start_from == ""
    for name in ("run_dir", "start_from"):
        for value in ("a*", "a?", "a[1]", "a\\b"):
            with pytest.raises(UserError, match=f"^--{name}=.*: {EXPECTED}.*any of"):
                Run(**{name: value})
    with pytest.raises(UserError, match=f"^--run_dir=: {EXPECTED}"):
        Run(run_dir="")


def test_a_folder_of_images_may_have_any_name():
    """TensorFlow, which takes names for patterns, does not read them."""
    assert Data(data_dir="").data_dir == ""
    assert Data(data_dir="digits [1]").data_dir == os.path.abspath("digits [1]")


@pytest.mark.parametrize("name", FOLDERS)
def test_the_spellings_of_a_folder_are_one(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def kept(value):
        return getattr(FOLDERS[name](**{name: value}), name)

    assert kept("a") == kept("a/") == kept("./a") == kept("b//../a/.")
    assert kept("~/a/") == kept(f"{tmp_path}//a") == str(tmp_path / "a")
    assert kept("~") == str(tmp_path)
    assert kept("a") == ("a" if name == "run_dir" else str(tmp_path / "a"))


@pytest.mark.parametrize("name", ["./~", "./~a", "./-a", "~/a", "a/", "b c"])
def test_what_is_kept_of_a_folder_is_read_again(name, monkeypatch, tmp_path):
    """From config.json, say, where a folder's name must not mean another one."""
    (tmp_path / "a[1]").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in (tmp_path, tmp_path / "a[1]"):
        monkeypatch.chdir(folder)
        asked = settings.of_values(dict.fromkeys(FOLDERS, name))
        values = settings.values_of(asked)
        assert settings.of_values(values) == settings.from_record(values, "a") == asked
        where = os.path.abspath(os.path.expanduser(name))
        assert {os.path.abspath(values[n]) for n in FOLDERS} == {where}


def test_every_setting_is_tried_above():
    tried = {*WHOLE, *NUMBERS, *CHOICES, *SIZES, *SWITCHES, *TEXTS}
    assert tried | {*FOLDERS, "runs"} == {*settings.FIELDS}
    assert {*FOLDERS} == {*settings.FOLDERS}


# --- What a mode uses -----------------------------------------------------------------


def test_a_mode_uses_what_its_work_depends_on():
    shared = {"mode", "run_dir", "seed", "jit", "eager", *settings.OF_MODEL}
    of_data, of_evaluation, of_show = (
        {field.name for field in dataclasses.fields(record)}
        for record in (Data, Evaluation, Show)
    )
    of_show -= {"runs"}
    evaluate = shared | of_data | of_evaluation | {"figures"}
    assert settings.used_by("evaluate") == evaluate | {"workers", "worker"}
    assert settings.used_by("generate") == shared | of_data | of_show - {"images"}
    assert settings.used_by("explore") == shared | of_data
    assert settings.used_by("compare") == {"mode", "seed", "runs"} | of_evaluation
    encode = shared - {"jit"} | {"digit", "images"}
    assert settings.used_by("encode") == encode
    assert settings.used_by("export") == {"mode", "run_dir", *settings.OF_MODEL}
    assert settings.used_by("train") == {*settings.FIELDS} - of_show - {"runs"}


def test_every_mode_and_every_setting_is_in_the_table():
    assert {*settings.MODES} == {*settings.FIELDS["mode"].metadata["choices"]}
    named = {name for names in settings.MODES.values() for name in names}
    assert named <= {*settings.FIELDS, *settings.GROUPS}
    assert set().union(*map(settings.used_by, settings.MODES)) == {*settings.FIELDS}


def test_latents_are_of_one_layer_or_two():
    assert Model(latent_dim=7).latents == (7,)
    assert Model(stochastic_layers=2, latent_dims=(9, 4)).latents == (9, 4)


def test_values_are_shown_as_on_the_command_line():
    assert settings.as_text((512, 256)) == "512,256"
    assert settings.as_text(1e-3) == "0.001" and settings.as_text("") == ""
