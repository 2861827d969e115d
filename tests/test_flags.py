import json
import os
import re
import sys

import pytest

import flags
from core import consistency
from core import settings as settings_of
from tests.conftest import ROOT, as_arguments

RECIPES = {path.stem: path for path in (ROOT / "core/recipes").glob("*.flags")}


@pytest.fixture
def parse():
    """parse(arguments) -> (Settings, names typed)."""

    def parse(*arguments):
        flags.parse([sys.argv[0], *arguments])
        return flags.settings(), flags.typed()

    return parse


def test_the_defaults_are_those_of_the_settings(parse):
    assert parse() == (settings_of.Settings(), set())


OTHER_VALUES = {  # of every setting, one that is not its default
    **dict(mode="evaluate", run_dir="a", resume="never", start_from="b", seed=1),
    **dict(jit=False, eager=True, checkpoint_every=2, keep_checkpoints=4),
    **dict(figures=False, film=True, dataset="synthetic", validation_size=6),
    **dict(binarization="static", epochs=7, batch_size=8, architecture="conv"),
    **dict(hidden_sizes=(400, 30), filters=(5, 6), latent_dim=3, stochastic_layers=2),
    **dict(latent_dims=(9, 4), upper_hidden_sizes=(11,), conditional=True),
    **dict(activation="silu", objective="iwae", num_samples=12, estimator="dreg"),
    **dict(beta=1.5, warmup_epochs=13, free_bits=0.25, learning_rate=1e-4),
    **dict(learning_rate_schedule="cosine", beta1=0.8, beta2=0.9, epsilon=1e-7),
    **dict(clip_norm=14.0, ema_decay=0.5, importance_samples=15, bfloat16=True),
    **dict(evaluation_images=16, evaluation_split="validation", num_images=17),
    **dict(weight_decay=0.1, runs="a,b"),
    **dict(digit=3, prior="flow", prior_components=18, flow_layers=19, flow_units=20),
    **dict(temperature=0.5, z="1,-2.5", interpolate="3,4", images="/c"),
    **dict(devices="2", logical_cpus=3, workers="a:1,b:2", worker=1),
}


def test_every_flag_becomes_its_setting(parse):
    """All but --data_dir, which most of --dataset exclude. The mode is one that leaves
    what contradicts what to the run's own settings."""
    settings, typed = parse(*as_arguments(OTHER_VALUES))
    assert typed == {*OTHER_VALUES} == {*settings_of.FIELDS} - {"data_dir"}
    found = settings_of.values_of(settings)
    assert found.pop("start_from") == os.path.abspath(OTHER_VALUES["start_from"])
    assert {"start_from": "b", **found} == {"data_dir": "", **OTHER_VALUES}
    for name, value in OTHER_VALUES.items():
        assert value != settings_of.FIELDS[name].default, name


@pytest.mark.parametrize(
    ("config", "dense"),
    [
        ('{"flags": {"architecture": "conv"}}', False),
        ('{"flags": {"architecture": "dense"}}', True),
        (None, True),
        ("{", True),
        ("[" * 100_000, True),
        ("[]", True),
        ('{"flags": null}', True),
    ],
)
def test_the_run_says_whether_its_networks_are_dense(parse, tmp_path, config, dense):
    """For a GPU's sake, before it is read as a whole; else what is asked for counts."""
    if config:
        (tmp_path / "config.json").write_text(config)
    parse(f"--run_dir={tmp_path}", "--mode=evaluate")
    assert flags.dense() == dense
    if dense and config != '{"flags": {"architecture": "dense"}}':
        parse(f"--run_dir={tmp_path}", "--architecture=conv")
        assert not flags.dense()


def test_a_run_can_go_on_from_any_working_directory(parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, typed = parse("--data_dir=digits")
    assert settings.data.data_dir == str(tmp_path / "digits") and typed == {"data_dir"}


@pytest.mark.parametrize("name", settings_of.FOLDERS)
def test_home_and_spellings_are_those_of_a_shell(parse, tmp_path, monkeypatch, name):
    """Whose own ~ does not come after a flag's = sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    mode = "--mode=encode" if name == "images" else "--mode=train"
    for value in (f"--{name}=~/a/", f"--{name}={tmp_path}//a"):
        found = settings_of.values_of(parse(mode, value)[0])
        assert found[name] == str(tmp_path / "a")
    asked = [parse(mode, f"--{name}={a}")[0] for a in ("b", "b/")]
    kept = [settings_of.values_of(settings)[name] for settings in asked]
    assert kept[0] == kept[1] and os.path.abspath(kept[0]) == str(tmp_path / "b")


def test_flags_of_before_are_forgotten(parse, capsys):
    """As in a notebook, where one process runs the program again and again."""
    parse("--epochs=3", "--nojit", "--run_dir=a", "--hidden_sizes=5", "--data_dir=b")
    settings, typed = parse("--seed=2")
    assert typed == {"seed"} and settings.run.seed == 2
    assert settings == settings_of.of_values({"seed": 2})
    refused(parse, capsys, "--epochs=4", "--beta=2", "--epsilon=0")
    with pytest.raises(SystemExit):
        parse("--latent_dim=7", "--help")
    assert parse() == (settings_of.Settings(), set())


def test_flags_of_a_file_are_forgotten_too(parse):
    for name in ("conv", "conditional"):
        parse(f"--flagfile={RECIPES[name]}")
    assert parse() == (settings_of.Settings(), set())


def test_a_flagfile_sets_flags(parse, tmp_path):
    (tmp_path / "a.flags").write_text("# a comment\n--epochs=9\n--latent_dim=5\n")
    settings, typed = parse(f"--flagfile={tmp_path}/a.flags", "--epochs=4")
    assert (settings.training.epochs, settings.model.latent_dim) == (4, 5)
    assert typed == {"epochs", "latent_dim"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_trains_in_a_folder_of_its_own(parse, name):
    settings, _ = parse(f"--flagfile={RECIPES[name]}")
    assert settings.run.run_dir == f"checkpoints/{name}"
    assert settings.run.mode == "train" and settings.data.dataset == "mnist"
    without = name in ("conv", "best_dense_1h_start")  # no -log p(x) is asked of these
    assert settings.evaluation.importance_samples == (0 if without else 5000)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_no_default_is_a_part_of_a_recipe(parse, name):
    """It states all that its numbers depend on, but what belongs to another choice."""
    settings, typed = parse(f"--flagfile={RECIPES[name]}")
    _, data, model, training, objective, adam, *_ = settings
    parts = map(vars, (model, training, objective, adam))
    needed = set().union({"binarization", "validation_size"}, *parts)
    values = settings_of.values_of(settings)
    for other, (owner, of) in consistency.OWNERS.items():
        if values[owner] not in of:
            needed.remove(other)
    assert needed <= typed


@pytest.mark.parametrize("mode", ["train", "evaluate", "generate"])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_goes_on_with_a_run_that_had_it_and_a_folder(parse, name, mode):
    """Its flag file says --dataset=mnist: MNIST in the folder that the run had."""
    recipe = f"--flagfile={RECIPES[name]}"
    begun, typed = parse(recipe, "--data_dir=any")
    folder = os.path.abspath("any")
    begun = consistency.going_on(None, begun, typed)
    assert (begun.data.dataset, begun.data.data_dir) == ("mnist", folder)
    recorded = json.loads(json.dumps(settings_of.values_of(begun)))
    past = settings_of.from_record(recorded, begun.run.run_dir)
    assert past == begun
    more = {
        "train": ["--data_dir=any", "--epochs=300"],
        "evaluate": ["--evaluation_images=7", "--nofigures"],
        "generate": ["--num_images=7", "--seed=1"],
    }
    asked, typed = parse(recipe, f"--mode={mode}", *more[mode])
    found = consistency.going_on(past, asked, typed)
    assert (found.data.dataset, found.data.data_dir) == ("mnist", folder)
    assert found.model == begun.model and found.run.mode == mode


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipes_data_set_may_be_changed_by_a_user(parse, capsys, name):
    """And by nothing else, such as a network that is down."""
    for changes in (["--dataset=auto"], ["--dataset=synthetic"]):
        settings, _ = parse(f"--flagfile={RECIPES[name]}", *changes)
        assert f"--dataset={settings.data.dataset}" in changes
        arguments = [f"--flagfile={RECIPES[name]}", *changes, "--data_dir=any"]
        assert "no more beside it than mnist" in refused(parse, capsys, *arguments)


def test_the_documents_speak_of_flags_that_there_are():
    known = {*settings_of.FIELDS, *(f"no{name}" for name in settings_of.FIELDS)}
    known |= {"help", "flagfile"}
    documents = "README.md", "core/README.md", "core/exercises.md"
    for path in (*map(ROOT.joinpath, documents), ROOT / "core/recipes/README.md"):
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
    "--activation=selu": "expected one of gelu, relu, tanh, silu",
    "--dataset=cifar": "expected one of",
    "--binarization=maybe": "expected one of",
    "--mode=test": "expected one of",
    "--resume=yes": "expected one of",
    "--learning_rate=0": "0.0: expected a number from 1.2e-38 to 3.4e+38",
    "--learning_rate=nan": "expected a number from 1.2e-38 to",
    "--learning_rate=inf": "expected a number from 1.2e-38 to",
    "--learning_rate=1e-50": "expected a number from 1.2e-38 to",
    "--learning_rate=1e39": "expected a number from 1.2e-38 to",
    "--learning_rate_schedule=step": "expected one of",
    "--beta1=1": "a number from 0 to 0.9999999",
    "--beta1=0.99999999": "a number from 0 to 0.9999999",
    "--beta2=-0.1": "a number from 0 to 0.9999999",
    "--epsilon=-1": "--epsilon=-1.0: expected a number from 1.2e-38",
    "--epsilon=nan": "--epsilon=nan: expected a number from 1.2e-38",
    "--epsilon=0": "--epsilon=0.0: expected a number from 1.2e-38",
    "--epsilon=1e-50": "--epsilon=1e-50: expected a number from 1.2e-38",
    "--clip_norm=-1": "expected 0 or a number from 1.2e-38",
    "--clip_norm=1e39": "--clip_norm=1e+39: expected 0 or a number from",
    "--jit=perhaps": "--jit",
    "--checkpoint_every=0": "from 1 to",
    "--keep_checkpoints=0": "from 1 to",
    "--num_images=0": "from 1 to",
    "--digit=10": "--digit",
    "--temperature=-1": "expected 0 or a number from",
    "--z=a": "--z=a: expected text as in X,Y,...",
    "--z=1,,2": "expected text as in X,Y,...",
    "--z=nan": "expected text as in X,Y,...",
    "--interpolate=3": "--interpolate=3: expected text as in I,J",
    "--interpolate=3,-4": "expected text as in I,J",
    "--images=": "--images=: expected the name of a folder",
    "--objective=vae": "expected one of",
    "--estimator=path": "expected one of",
    "--num_samples=0": "from 1 to",
    "--num_samples=3000000000": "--num_samples=3000000000: expected a whole",
    f"--num_samples=1{23 * '0'}": "--num_samples=1000",
    f"--evaluation_images=1{23 * '0'}": "--evaluation_images=1000",
    f"--importance_samples=1{23 * '0'}": "--importance_samples=1000",
    f"--num_images=1{20 * '0'}": "--num_images=1000",
    "--batch_size=9999999999": "--batch_size=9999999999: expected a whole number from",
    "--hidden_sizes=9999999999": "positive sizes joined by commas",
    "--beta=-1": "expected 0 or a number from",
    "--free_bits=inf": "expected 0 or a number from",
    "--warmup_epochs=-1": "from 0 to",
    "--ema_decay=1": "a number from 0 to 0.9999999",
    "--stochastic_layers=3": "--stochastic_layers",
    "--latent_dims=5": "2 positive sizes",
    "--filters=32": "2 positive sizes",
    "--architecture=resnet": "expected one of",
    "--importance_samples=-1": "from 0 to",
    "--evaluation_split=train": "expected one of",
    "--run_dir=": "--run_dir=: expected the name of a folder",
    "--data_dir=": "--data_dir=: expected the name of a folder",
    "--start_from=": "--start_from=: expected the name of a folder",
    "--run_dir=runs/a[1]": "without any of",
    "--run_dir=run?": "without any of",
    "--run_dir=s3://bucket/run": "expected the name of a folder on this machine",
    "--data_dir=https://a.org/b": "expected the name of a folder on this machine",
    "--start_from=file:///a": "expected the name of a folder on this machine",
    "--data_dir=~nobody.at.all/a": "expected the name of a folder on this machine",
    "--run_dir --epochs=3": "--run_dir=--epochs=3: expected the name of a folder",
    "--data_dir --nojit": "--data_dir=--nojit: expected the name of a folder",
    "--start_from -h=3": "--start_from=-h=3: expected the name of a folder",
    "--epochs=3 --run_dir": "Missing value for flag --run_dir",
    "--dataset --eager": "--dataset=--eager: expected one of",
    "--hidden_sizes --nojit": "--hidden_sizes=--nojit: expected positive sizes",
    "--flagfile=/no/such/file": "error: Unable to open flagfile: ",
    "--run_dir=a\udcff": "expected the name of a folder on this machine",
    f"--mode=generate --interpolate={'1' * 10},2": "expected text as in I,J",
    "--flagfile=": "--flagfile=: expected the name of a file",
    "--flagfile --nojit": "--nojit",
    "--jit false": "unexpected 'false'",
    "--data_dir= /a": "unexpected '/a'",
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
    assert len(output.err) <= 200
    return output.err


@pytest.mark.parametrize("argument", BAD)
def test_a_wrong_flag_is_one_line_and_exit_code_2(parse, capsys, argument):
    error = refused(parse, capsys, *argument.split(" "))
    assert BAD[argument] in error and "(--help lists the flags)" in error


CONTRADICTIONS = {
    "--data_dir=x --dataset=auto": "--data_dir is read instead of --dataset",
    "--data_dir=x --dataset=fashion_mnist": "--data_dir is read instead of --dataset",
    "--data_dir=x --dataset=synthetic": "may say no more beside it than mnist",
    "--eager --jit": "runs without XLA: leave out --jit",
    "--latent_dims=100,50": "is of --stochastic_layers=2",
    "--estimator=dreg": "for the elbo, use stl",
    "--digit=3": "--digit is not used by --mode=train: leave it out",
    "--num_images=4": "--num_images is not used by --mode=train: leave it out",
}


@pytest.mark.parametrize("arguments", CONTRADICTIONS)
def test_contradictions_are_refused_with_a_reason(parse, capsys, arguments):
    """Some of those of `settings.check`, which is told what was typed."""
    assert CONTRADICTIONS[arguments] in refused(parse, capsys, *arguments.split())


def test_mnist_may_be_asked_for_beside_a_folder(parse):
    settings, typed = parse("--dataset=mnist", "--data_dir=x")
    assert typed == {"dataset", "data_dir"} and settings.data.dataset == "mnist"


def test_a_flag_that_a_mode_does_not_use_may_be_what_it_is_anyway(parse):
    _, typed = parse("--digit=-1", "--num_images=100")
    assert typed == {"digit", "num_images"}


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
        assert rest == f"={field.default} ({'|'.join(choices)})"
    else:
        forms = {"z": "X,Y,...", "interpolate": "I,J", "devices": "N"}
        forms["workers"] = "HOST:PORT,HOST:PORT,..."
        assert rest == f"={shown(field.default) or forms.get(name, 'FOLDER')}"


def test_help_is_sentences_in_lines_that_fit():
    for name, field in settings_of.FIELDS.items():
        text = field.metadata["help"]
        assert text.endswith(".") and not text.startswith(" "), name
    text = flags.help_text()
    assert max(map(len, text.split("\n"))) <= 88
    assert [title for title, _ in titles(text)] == [
        group.capitalize() for group in settings_of.GROUPS
    ]


def titles(text):
    """[(title of a group of flags, modes beside it)] in the text of --help."""
    lines = re.findall(r"\n\n\n?(\S.*)\n\n", text[text.index("first_minute") :])
    return [re.fullmatch(r"(.+) \(--mode=(.+)\)", line).groups() for line in lines]


def test_help_says_which_modes_use_what(monkeypatch):
    """As the table has it that also refuses what a mode does not use."""
    found = dict(titles(flags.help_text()))
    assert found["Data"] == "train, evaluate, generate, report, explore"
    assert found["Evaluation"] == "train, evaluate, report, compare"
    assert found["Training"] == found["Objective"] == found["Adam"] == "train"
    of_a_run = "train, evaluate, generate, report, explore"
    assert found["Model"] == f"{of_a_run}, encode, export"
    assert found["Run"] == f"{of_a_run}, compare, encode, export"
    assert found["Show"] == "generate, compare, encode"
    modes = settings_of.MODES
    monkeypatch.setitem(modes, "evaluate", (*modes["evaluate"], "digit", "adam"))
    monkeypatch.setitem(modes, "generate", ("mode", "num_images"))
    found = dict(titles(flags.help_text()))
    assert found["Show"] == "evaluate, generate, compare, encode"
    assert found["Adam"] == "train, evaluate"
    assert found["Model"] == "train, evaluate, report, explore, encode, export"
