"""The documents for learners say what the code says."""

import ast
import re
import shlex

import pytest

import flags
from core.run import metrics
from tests.conftest import ROOT, run, small_settings

LESSON, EXERCISES = ROOT / "core/README.md", ROOT / "core/exercises.md"
NAMED = re.compile(r"`(\w+)`[^`]{0,30}?\[`([\w/.]+)`\]\(([\w/.]+)\)", re.DOTALL)


def blocks(path, language=""):
    """What stands between fences of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.M | re.S)


def functions(file):
    """{name: source} of a file's functions."""
    source = (ROOT / file).read_text()
    found = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(source, node) for node in found}


def sections(path):
    return re.split(r"^## ", path.read_text(), flags=re.M)[1:]


def test_every_function_of_the_lesson_exists():
    named = NAMED.findall(LESSON.read_text())
    assert len(named) >= 12
    for name, file, link in named:
        assert (LESSON.parent / link).resolve() == ROOT / file
        assert name in functions(file), f"{file} has no {name}"


def test_every_formula_stands_beside_its_function_and_its_line():
    """Word for word: a line of code that changes has to change there too."""
    assert len(LESSON.read_text().splitlines()) <= 150
    for text in sections(LESSON):
        named = NAMED.findall(text)
        assert "```math\n" in text and named, text.split("\n")[0]
        lines = [functions(file)[name] for name, file, _ in named]
        lines = [line.strip() for line in "\n".join(lines).split("\n")]
        for block in re.findall(r"```python\n(.*?)```", text, re.S):
            for line in block.strip().split("\n"):
                assert line in lines, f"no function named there has: {line}"


def test_the_lesson_goes_in_the_order_of_the_code():
    order = "bound Reparameterization KL Bernoulli loss Importance Adam".split()
    titles = [text.split("\n")[0] for text in sections(LESSON)][1:]
    assert len(titles) == len(order)
    for word, title in zip(order, titles, strict=True):
        assert word in title
    assert len(blocks(LESSON, "math")) == len(titles) + 1
    assert len(blocks(LESSON, "python")) == len(titles)


def commands():
    """The arguments of every command in the exercises."""
    found = [line for block in blocks(EXERCISES) for line in block.strip().split("\n")]
    assert len(found) >= 8 and all(line.startswith("python loop.py") for line in found)
    return [shlex.split(line)[1:] for line in found]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_the_command_line_takes_every_command(arguments):
    flags.parse(arguments)
    assert flags.typed() and "data_dir" not in flags.typed()


def test_the_line_that_an_exercise_changes_is_there():
    text, (old, new) = (
        EXERCISES.read_text(),
        ("tf.exp(0.5 * log_var)", "tf.exp(log_var)"),
    )
    assert f"`{new}` in place\nof `{old}`" in text
    assert functions("core/model/distributions.py")["gaussian_sample"].count(old) == 1


def test_the_first_exercise_shows_what_it_says(data_dir, tmp_path, unreported):
    """Without the KL distortion falls and the rate rises: by its own flags, small."""
    reached = []
    for number, arguments in enumerate(commands()[:2]):
        flags.parse(arguments)
        asked = {name: flags.FLAGS[name].value for name in flags.typed()}
        shorter = small_settings(data_dir, tmp_path / str(number)) | {"epochs": 5}
        run(shorter | {"latent_dim": asked["latent_dim"]}, beta=asked.get("beta", 1.0))
        found = metrics.read(tmp_path / str(number) / "metrics.jsonl")
        reached.append([found[-1][f"train_{part}"] for part in ("distortion", "rate")])
    (distortion, rate), (freed_distortion, freed_rate) = reached
    assert freed_distortion < distortion - 5 and freed_rate > rate + 20
