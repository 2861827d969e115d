"""What design and project promise about the code itself."""

import ast
import re
import subprocess
import time

import pytest

from tests.conftest import ROOT, program

ORDER = (
    "process files rng mnist synthetic batches datasets distributions networks vae "
    "hierarchical objective adam step evaluate probes checkpoint metrics reports "
    "figures"
).split()
CORE = sorted((ROOT / "core").glob("*.py"))
PRODUCT = [ROOT / "loop.py", ROOT / "flags.py", *CORE]
FORBIDDEN = r"keras|compat\.v1|tensorflow_probability|tf\.optimizers|pickle|random_seed"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_its_place_and_its_test():
    names = {path.stem for path in CORE} - {"__init__"}
    assert names == set(ORDER)
    tests = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    assert tests == {
        f"test_{name}" for name in {*ORDER, *"loop flags structure bad_inputs".split()}
    }


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_imports_go_left_only(path):
    for name in imports(path):
        assert name.split(".")[0] not in ("flags", "loop", "absl"), name
        if name.startswith("core."):
            assert ORDER.index(name.split(".")[1]) < ORDER.index(path.stem), name


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: path.stem)
def test_nothing_is_hidden_behind_keras(path):
    assert not re.search(FORBIDDEN, path.read_text(), re.IGNORECASE)
    if path.stem != "flags":
        assert "absl.flags" not in imports(path)
    if path.stem == "figures":
        assert not any(name.startswith("tensorflow") for name in imports(path))


def test_variables_are_assigned_in_few_places():
    """Training's are assigned by Adam; the block keeps totals, the loop its clock."""
    found = {
        (path.stem, match)
        for path in PRODUCT
        for match in re.findall(r"([\w.]+)\.assign", path.read_text())
    }
    assert found == {
        *(("adam", name) for name in ("p", "m", "v", "average", "state.step")),
        ("step", "state.totals"),
        ("loop", "state.seconds"),
    }


def test_the_top_level_is_as_fixed():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed}
    fixed = {"README.md", "requirements.txt", "core", "loop.py", "flags.py"}
    fixed |= {"tests", "checkpoints"}
    assert {name for name in top if not name.startswith(".")} <= fixed


def test_public_functions_say_what_they_do():
    for path in PRODUCT:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.stem}.{node.name}"


@pytest.mark.slow
def test_names_of_tests_depend_on_nothing_but_their_files():
    """Workers that start at other times, with other orders of sets, must agree."""
    collected = []
    for hash_seed in "12":
        process = program(
            *("--collect-only", "-q", "-m", "slow or not slow"),
            script=("-m", "pytest"),
            env={"PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
        )
        collected.append(process.communicate(timeout=120)[0].split("\n\n")[0])
        time.sleep(1)  # a gzip header has the second in it
    assert collected[0] == collected[1] and collected[0].count("::") > 500
