import dataclasses
import sys

import pytest
from absl.testing import flagsaver

import flags


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


@pytest.mark.parametrize("pair", ["--eager --jit", "--data_dir=x --dataset=mnist"])
def test_contradictions_are_refused(parse, capsys, pair):
    with pytest.raises(SystemExit):
        parse(*pair.split())
    assert pair.split("=")[0].split()[0] in capsys.readouterr().err


# --- Beside the flags of an existing run ----------------------------------------------

PAST = flags.Config(epochs=5, latent_dim=20, hidden_sizes=(400,), seed=3)
RECORDED = dataclasses.asdict(PAST) | {"hidden_sizes": [400]}  # as JSON gives it back


def test_training_goes_on_with_other_epochs_and_learning_rate():
    now = dataclasses.replace(PAST, epochs=9, learning_rate=1e-4, checkpoint_every=2)
    assert flags.settle(now, {"epochs"}, PAST) == now


@pytest.mark.parametrize("name", flags.OF_RUN)
def test_training_refuses_each_flag_that_shapes_the_run(name):
    default = {f.name: f.default for f in dataclasses.fields(flags.Config)}[name]
    other = {
        "hidden_sizes": (7, 7),
        "binarization": "static",
        "activation": "tanh",
    }.get(name) or default + 1
    now = dataclasses.replace(PAST, **{name: other})
    message = rf"--{name} \(the run: .*, now: .*{other}.*--run_dir, or give the run's"
    with pytest.raises(ValueError, match=message.replace("(7, 7)", ".7, 7.")):
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


def test_generate_may_have_a_seed_of_its_own():
    now = flags.Config(mode="generate", seed=8)
    assert flags.settle(now, {"mode", "seed"}, PAST).seed == 8


def test_a_record_without_flags_is_refused():
    assert flags.from_record(RECORDED, "run") == PAST
    with pytest.raises(ValueError, match="run: its config.json lacks the flags"):
        flags.from_record({"epochs": 3}, "run")


def test_changes_of_the_numbers_are_listed():
    now = dataclasses.replace(PAST, learning_rate=0.5, figures=False, epochs=9)
    assert flags.changes(now, PAST) == ["--learning_rate was 0.001 and is 0.5"]
    now = dataclasses.replace(PAST, learning_rate_schedule="cosine", epochs=9)
    assert len(flags.changes(now, PAST)) == 2
