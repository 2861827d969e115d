import dataclasses
import json
import re
import sys

import pytest
from absl.testing import flagsaver

import flags
from tests.conftest import ROOT

RECIPES = {path.stem: path for path in (ROOT / "core/recipes").glob("*.flags")}


@pytest.fixture
def parse():
    """parse(arguments) -> (Config, names given), with the flags restored after."""
    with flagsaver.flagsaver():
        flags.flags.FLAGS.unparse_flags()

        def parse(*arguments):
            flags.parse([sys.argv[0], *arguments])
            return flags.config(), flags.given()

        yield parse


def test_the_defaults_are_those_of_the_config(parse):
    assert parse() == (flags.Config(), set())


def test_flags_become_the_config(parse):
    config, given = parse(
        "--epochs=7", "--hidden_sizes=400,30", "--nojit", "--learning_rate=1e-4"
    )
    assert given == {"epochs", "hidden_sizes", "jit", "learning_rate"}
    assert config == dataclasses.replace(
        flags.Config(), epochs=7, hidden_sizes=(400, 30), jit=False, learning_rate=1e-4
    )


def test_a_flagfile_sets_flags(parse, tmp_path):
    (tmp_path / "a.flags").write_text("# a comment\n--epochs=9\n--latent_dim=5\n")
    config, _ = parse(f"--flagfile={tmp_path}/a.flags", "--epochs=4")
    assert (config.epochs, config.latent_dim) == (4, 5)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_trains_in_a_folder_of_its_own(parse, name):
    config, _ = parse(f"--flagfile={RECIPES[name]}")
    assert config.run_dir == f"checkpoints/{name}" and config.mode == "train"
    assert config.importance_samples == (0 if name == "conv" else 5000)


def test_the_documents_speak_of_flags_that_there_are():
    known = {*flags.FIELDS, *(f"no{name}" for name in flags.FIELDS)}
    known |= {"help", "flagfile"}
    for path in (ROOT / "README.md", ROOT / "core/recipes/README.md"):
        named = set(re.findall(r"(?<![\w-])--([a-z]\w*)", path.read_text()))
        assert named and named <= known, path


BAD = {
    "--epoch=3": "Unknown command line flag 'epoch'",
    "--epochs=0": "flag --epochs=0: 0 is not a positive integer",
    "--epochs=-1": "positive",
    "--epochs=two": "invalid literal",
    "--epochs=1.5": "--epochs",
    "--epochs=": "--epochs",
    "--latent_dim=0": "positive",
    "--batch_size=0": "positive",
    "--validation_size=-1": "non-negative",
    "--seed=-1": "--seed",
    "--seed=2147483648": "--seed",
    "--hidden_sizes=": "positive sizes joined by commas",
    "--hidden_sizes=0": "positive sizes joined by commas",
    "--hidden_sizes=4,x": "positive sizes joined by commas",
    "--hidden_sizes=4,-2": "positive sizes joined by commas",
    "--activation=selu": "should be one of <relu|tanh|gelu|silu>",
    "--dataset=cifar": "should be one of",
    "--binarization=maybe": "should be one of",
    "--mode=test": "should be one of",
    "--resume=yes": "should be one of",
    "--learning_rate=0": "positive number",
    "--learning_rate=nan": "positive number",
    "--learning_rate=inf": "positive number",
    "--learning_rate_schedule=step": "should be one of",
    "--beta1=1": "a number in [0, 1)",
    "--beta2=-0.1": "a number in [0, 1)",
    "--epsilon=-1": "--epsilon",
    "--epsilon=nan": "at least 0",
    "--clip_norm=-1": "at least 0",
    "--jit=perhaps": "--jit",
    "--checkpoint_every=0": "positive",
    "--keep_checkpoints=0": "positive",
    "--num_images=0": "positive",
    "--digit=10": "--digit",
    "--objective=vae": "should be one of",
    "--estimator=path": "should be one of",
    "--num_samples=0": "positive",
    "--beta=-1": "at least 0",
    "--free_bits=inf": "at least 0",
    "--warmup_epochs=-1": "non-negative",
    "--ema_decay=1": "a number in [0, 1)",
    "--stochastic_layers=3": "--stochastic_layers",
    "--latent_dims=5": "two positive sizes",
    "--filters=32": "two positive sizes",
    "--architecture=resnet": "should be one of",
    "--importance_samples=-1": "non-negative",
    "--evaluation_split=train": "should be one of",
    "--run_dir=": "a folder's name",
    "--run_dir=runs/a[1]": "without any of",
    "--run_dir=run?": "without any of",
    "--flagfile=/no/such/file": "/no/such/file",
    "30": "unexpected '30'",
}


@pytest.mark.parametrize("argument", BAD)
def test_a_wrong_flag_is_one_line_and_exit_code_2(parse, capsys, argument):
    with pytest.raises(SystemExit) as stop:
        parse(argument)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert BAD[argument] in output.err
    assert output.err.startswith("error: ") and output.err.count("\n") == 1


CONTRADICTIONS = {
    "--eager --jit": "--eager runs without XLA",
    "--data_dir=x --dataset=mnist": "--data_dir is read instead of --dataset",
    "--stochastic_layers=2 --latent_dim=5": "--latent_dim is of one layer",
    "--latent_dims=5,4": "are of --stochastic_layers=2",
    "--upper_hidden_sizes=5": "are of --stochastic_layers=2",
    "--architecture=conv --hidden_sizes=5": "give --filters",
    "--filters=5,6": "are of --architecture=conv",
    "--architecture=conv --jit": "runs without XLA",
    "--objective=iwae --estimator=stl": "biased for the IWAE bound: use dreg",
    "--estimator=dreg": "for the elbo, use stl",
    "--objective=iwae --estimator=dreg --warmup_epochs=2": "the unweighted bound",
    "--objective=iwae --estimator=dreg --beta=2": "for --beta=1 alone",
    "--objective=iwae --beta=2": "for --beta=1 alone",
    "--objective=iwae --free_bits=0.1": "a floor under the KL of each dimension",
    "--bfloat16 --architecture=conv": "of dense networks",
    "--bfloat16": "give --importance_samples",
    "--estimator=stl --free_bits=0.1": "a floor under the KL of each dimension",
    "--binarization=none --objective=iwae": "have no likelihood",
    "--binarization=none --importance_samples=9": "have no likelihood",
    "--digit=3": "--digit is of --mode=generate",
    "--validation_size=0 --evaluation_split=validation": "needs validation images",
}


@pytest.mark.parametrize("arguments", CONTRADICTIONS)
def test_contradictions_are_refused_with_a_reason(parse, capsys, arguments):
    with pytest.raises(SystemExit):
        parse(*arguments.split())
    error = capsys.readouterr().err
    assert CONTRADICTIONS[arguments] in error and error.count("\n") == 1


def test_a_digit_needs_a_conditional_run():
    now = flags.Config(mode="generate", digit=7)
    with pytest.raises(ValueError, match="trained with --conditional"):
        flags.settle(now, {"mode", "digit"}, PAST)
    past = dataclasses.replace(PAST, conditional=True)
    assert flags.settle(now, {"mode", "digit"}, past).digit == 7


# --- Beside the flags of an existing run ----------------------------------------------

PAST = flags.Config(epochs=5, latent_dim=20, hidden_sizes=(400,), seed=3)
RECORDED = json.loads(json.dumps(dataclasses.asdict(PAST)))


def test_training_goes_on_with_other_epochs_and_learning_rate():
    now = dataclasses.replace(PAST, epochs=9, learning_rate=1e-4, checkpoint_every=2)
    assert flags.settle(now, {"epochs"}, PAST) == now


@pytest.mark.parametrize("name", flags.OF_RUN)
def test_training_refuses_each_flag_that_shapes_the_run(name):
    default = {f.name: f.default for f in dataclasses.fields(flags.Config)}[name]
    other = {
        "binarization": "static",
        "activation": "tanh",
        "architecture": "conv",
        "conditional": True,
        "ema_decay": 0.9,
        "start_from": "other",
    }.get(name) or ((7, 7) if isinstance(default, tuple) else default + 1)
    now = dataclasses.replace(PAST, **{name: other})
    other = "7,7" if isinstance(other, tuple) else other
    message = (
        rf"--{name} \(the run: .+, now: {other}\); .*another folder, or give the run's"
    )
    with pytest.raises(ValueError, match=message):
        flags.settle(now, set(), PAST)


def test_every_difference_is_listed():
    with pytest.raises(ValueError, match="--seed.*--hidden_sizes.*--latent_dim"):
        flags.settle(flags.Config(), set(), PAST)


def test_other_modes_take_the_runs_own_flags():
    now = flags.Config(mode="evaluate", figures=False)
    settled = flags.settle(now, {"mode", "figures"}, PAST)
    assert settled == dataclasses.replace(PAST, mode="evaluate", figures=False)
    with pytest.raises(ValueError, match="--latent_dim"):
        flags.settle(now, {"mode", "latent_dim"}, PAST)
    past = dataclasses.replace(PAST, eager=True, data_dir="digits")
    settled = flags.settle(now, {"mode"}, past)
    assert settled.data_dir == "digits" and not settled.eager
    other = dataclasses.replace(now, dataset="mnist")
    assert flags.settle(other, {"mode", "dataset"}, past).data_dir == ""


def test_generate_may_have_a_seed_of_its_own():
    now = flags.Config(mode="generate", seed=8)
    assert flags.settle(now, {"mode", "seed"}, PAST).seed == 8


def test_a_record_of_an_earlier_version_has_defaults_for_its_younger_flags():
    assert flags.from_record(RECORDED, "run") == PAST
    older = {name: value for name, value in RECORDED.items() if name != "bfloat16"}
    assert flags.from_record(older, "run") == PAST


@pytest.mark.parametrize("change", [{"a_later_flag": 1}, {"epochs": "3"}])
def test_a_record_of_something_else_is_refused(change):
    with pytest.raises(ValueError, match="run: expected the flags of a run .*version"):
        flags.from_record(RECORDED | change, "run")


def test_changes_of_the_numbers_are_listed():
    now = dataclasses.replace(PAST, learning_rate=0.5, figures=False, epochs=9)
    assert flags.changes(now, PAST) == ["--learning_rate was 0.001 and is 0.5"]
    now = dataclasses.replace(PAST, learning_rate_schedule="cosine", epochs=9)
    assert len(flags.changes(now, PAST)) == 2
