import re
import sys

import pytest
from absl.testing import flagsaver

import flags
from core import settings as settings_of
from tests.conftest import ROOT, as_arguments

RECIPES = {path.stem: path for path in (ROOT / "core/recipes").glob("*.flags")}


@pytest.fixture
def parse():
    """parse(arguments) -> (Settings, names typed), with the flags restored after."""
    with flagsaver.flagsaver():
        flags.flags.FLAGS.unparse_flags()

        def parse(*arguments):
            flags.parse([sys.argv[0], *arguments])
            return flags.settings(), flags.typed()

        yield parse


def test_the_defaults_are_those_of_the_settings(parse):
    assert parse() == (settings_of.Settings(), set())


OTHER_VALUES = {  # of every setting, one that is not its default
    **dict(mode="evaluate", run_dir="a", resume="never", start_from="b", seed=1),
    **dict(jit=False, eager=True, checkpoint_every=2, keep_checkpoints=4),
    **dict(figures=False, dataset="synthetic", validation_size=6),
    **dict(binarization="static", epochs=7, batch_size=8, architecture="conv"),
    **dict(hidden_sizes=(400, 30), filters=(5, 6), latent_dim=3, stochastic_layers=2),
    **dict(latent_dims=(9, 4), upper_hidden_sizes=(11,), conditional=True),
    **dict(activation="silu", objective="iwae", num_samples=12, estimator="dreg"),
    **dict(beta=1.5, warmup_epochs=13, free_bits=0.25, learning_rate=1e-4),
    **dict(learning_rate_schedule="cosine", beta1=0.8, beta2=0.9, epsilon=1e-7),
    **dict(clip_norm=14.0, ema_decay=0.5, importance_samples=15, bfloat16=True),
    **dict(evaluation_images=16, evaluation_split="validation", num_images=17),
    **dict(digit=3),
}


def test_every_flag_becomes_its_setting(parse):
    """All but --data_dir, which --dataset excludes. The mode is one that leaves what
    contradicts what to the run's own settings."""
    settings, typed = parse(*as_arguments(OTHER_VALUES))
    assert typed == {*OTHER_VALUES} == {*settings_of.FIELDS} - {"data_dir"}
    assert settings_of.values_of(settings) == {"data_dir": "", **OTHER_VALUES}
    for name, value in OTHER_VALUES.items():
        assert value != settings_of.FIELDS[name].default, name


def test_a_run_can_go_on_from_any_working_directory(parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, typed = parse("--data_dir=digits")
    assert settings.data.data_dir == str(tmp_path / "digits") and typed == {"data_dir"}


def test_a_flagfile_sets_flags(parse, tmp_path):
    (tmp_path / "a.flags").write_text("# a comment\n--epochs=9\n--latent_dim=5\n")
    settings, typed = parse(f"--flagfile={tmp_path}/a.flags", "--epochs=4")
    assert (settings.training.epochs, settings.model.latent_dim) == (4, 5)
    assert typed == {"epochs", "latent_dim"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_trains_in_a_folder_of_its_own(parse, name):
    settings, _ = parse(f"--flagfile={RECIPES[name]}")
    assert settings.run.run_dir == f"checkpoints/{name}"
    assert settings.run.mode == "train"
    assert settings.evaluation.importance_samples == (0 if name == "conv" else 5000)


def test_the_documents_speak_of_flags_that_there_are():
    known = {*settings_of.FIELDS, *(f"no{name}" for name in settings_of.FIELDS)}
    known |= {"help", "flagfile"}
    for path in (ROOT / "README.md", ROOT / "core/recipes/README.md"):
        named = set(re.findall(r"(?<![\w-])--([a-z]\w*)", path.read_text()))
        assert named and named <= known, path


BAD = {
    "--epoch=3": "Unknown command line flag 'epoch'",
    "--epochs=0": "--epochs=0: expected a whole number from 1 to",
    "--epochs=-1": "from 1 to",
    "--epochs=two": "invalid literal",
    "--epochs=1.5": "--epochs",
    "--epochs=": "--epochs",
    "--latent_dim=0": "from 1 to",
    "--batch_size=0": "from 1 to",
    "--validation_size=-1": "from 0 to",
    "--seed=-1": "--seed",
    "--seed=2147483648": "--seed",
    "--hidden_sizes=": "positive sizes joined by commas",
    "--hidden_sizes=0": "positive sizes joined by commas",
    "--hidden_sizes=4,x": "--hidden_sizes=4,x: expected positive sizes joined by",
    "--hidden_sizes=4,-2": "positive sizes joined by commas",
    "--activation=selu": "expected one of relu, tanh, gelu, silu",
    "--dataset=cifar": "expected one of",
    "--binarization=maybe": "expected one of",
    "--mode=test": "expected one of",
    "--resume=yes": "expected one of",
    "--learning_rate=0": "positive number",
    "--learning_rate=nan": "positive number",
    "--learning_rate=inf": "positive number",
    "--learning_rate_schedule=step": "expected one of",
    "--beta1=1": "a number in [0, 1)",
    "--beta2=-0.1": "a number in [0, 1)",
    "--epsilon=-1": "--epsilon",
    "--epsilon=nan": "at least 0",
    "--clip_norm=-1": "at least 0",
    "--jit=perhaps": "--jit",
    "--checkpoint_every=0": "from 1 to",
    "--keep_checkpoints=0": "from 1 to",
    "--num_images=0": "from 1 to",
    "--digit=10": "--digit",
    "--objective=vae": "expected one of",
    "--estimator=path": "expected one of",
    "--num_samples=0": "from 1 to",
    "--beta=-1": "at least 0",
    "--free_bits=inf": "at least 0",
    "--warmup_epochs=-1": "from 0 to",
    "--ema_decay=1": "a number in [0, 1)",
    "--stochastic_layers=3": "--stochastic_layers",
    "--latent_dims=5": "2 positive sizes",
    "--filters=32": "2 positive sizes",
    "--architecture=resnet": "expected one of",
    "--importance_samples=-1": "from 0 to",
    "--evaluation_split=train": "expected one of",
    "--run_dir=": "a folder's name",
    "--run_dir=runs/a[1]": "without any of",
    "--run_dir=run?": "without any of",
    "--flagfile=/no/such/file": "/no/such/file",
    "30": "unexpected '30'",
}


def refused(parse, capsys, *arguments):
    """What is printed of these arguments: one line, with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ") and output.err.count("\n") == 1
    return output.err


@pytest.mark.parametrize("argument", BAD)
def test_a_wrong_flag_is_one_line_and_exit_code_2(parse, capsys, argument):
    error = refused(parse, capsys, argument)
    assert BAD[argument] in error and "(--help lists the flags)" in error


CONTRADICTIONS = {
    "--data_dir=x --dataset=mnist": "--data_dir is read instead of --dataset",
    "--eager --jit": "--eager runs without XLA",
    "--latent_dims=100,50": "are of --stochastic_layers=2",
    "--estimator=dreg": "for the elbo, use stl",
    "--digit=3": "--digit is of --mode=generate",
}


@pytest.mark.parametrize("arguments", CONTRADICTIONS)
def test_contradictions_are_refused_with_a_reason(parse, capsys, arguments):
    """Some of those of `settings.check`, which is told what was typed."""
    assert CONTRADICTIONS[arguments] in refused(parse, capsys, *arguments.split())


def test_other_modes_leave_contradictions_to_the_runs_own_settings(parse):
    settings, _ = parse("--mode=generate", "--digit=3")
    assert settings.show.digit == 3 and not settings.model.conditional


# --- --help ---------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["--help", "-h", "-help"])
def test_help_is_printed_and_nothing_else_is_looked_at(parse, capsys, argument):
    with pytest.raises(SystemExit) as stop:
        parse("--epoch=3", argument)
    assert stop.value.code == 0
    output = capsys.readouterr()
    assert output.out == flags.help_text() + "\n" and output.err == ""


@pytest.mark.parametrize("name", settings_of.FIELDS)
def test_help_lists_every_flag_with_default_and_choices(name):
    field, shown = settings_of.FIELDS[name], settings_of.as_text
    pattern = rf"\n  --(?:\[no\])?{name}\b(.*)\n((?:      .*\n)+)"
    ((rest, text),) = re.findall(pattern, flags.help_text())
    assert " ".join(text.split()) == " ".join(field.metadata["help"].split())
    choices = field.metadata["choices"]
    if isinstance(field.default, bool):
        assert rest == f" (default: {'' if field.default else 'no'}{name})"
    elif choices:
        assert rest == f"={field.default} ({' | '.join(choices)})"
    else:
        assert rest == f"={shown(field.default) if field.default != '' else 'FOLDER'}"


def test_help_is_sentences_in_lines_that_fit():
    for name, field in settings_of.FIELDS.items():
        text = field.metadata["help"]
        assert text.endswith(".") and not text.startswith(" "), name
    text = flags.help_text()
    assert max(map(len, text.split("\n"))) <= 88
    titles = [flags.TITLES[group] for group in settings_of.GROUPS]
    assert (
        re.findall(r"\n\n\n?(\S.*)\n\n", text[text.index("first_minute") :]) == titles
    )
