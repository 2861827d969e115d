"""What the design promises about the code itself.

A test that fails here tells in a sentence what to do: who adds a module or a function
is not to read this file.
"""

import ast
import graphlib
import re
import subprocess
import time

import pytest

from tests import mutations
from tests.conftest import ROOT, program

# Imports go down only: from a later part of core to an earlier one, or within one.
ORDER = (
    *("errors", "options", "settings", "consistency", "rng", "numerics", "progress"),
    *("data", "model", "training run", "evaluation", "show", "onward"),
)
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts.split()}
NEVER = {  # part -> what it does not reach, by whatever way
    "model": "core.data.download",
    "training": "core.data.download",
    "evaluation": "core.training",
    "show": "core.training",
    "": "core.onward",  # of loop.py and flags.py
}
FORBIDDEN = r"keras|compat\.v1|tensorflow_probability|tf\.optimizers|pickle|random_seed"
ASSIGNED = {
    *(("core/training/adam.py", name) for name in ("p", "m", "v", "average")),
    *(("loop.py", name) for name in ("state.step", "state.totals")),
    ("core/training/replicas.py", "variable"),  # what the chief read, to the others
    ("core/onward/steps.py", "state.step"),
}
LONGEST_MODULE, LONGEST_FUNCTION, MOST_ARGUMENTS = 260, 40, 6
LONGER = {
    "core/settings.py": 295,  # a table: the more there is to set, the longer
    "loop.py train": 70,
}
MORE_ARGUMENTS = {"core/training/adam.py update": 8}  # Adam's own letters
WITHOUT_TESTS = {"core/errors.py"}  # there is nothing in it that could break
TOP_LEVEL = "README.md requirements.txt flags.py loop.py core tests checkpoints".split()


def tell(problems):
    """Fail, if there are any, with these sentences alone."""
    if problems := list(problems):
        pytest.fail("\n".join(problems), pytrace=False)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


CORE = {name_of(path): path for path in sorted((ROOT / "core").rglob("*.py"))}
PRODUCT = {name: ROOT / name for name in ("loop.py", "flags.py")} | CORE
TREES = {name: ast.parse(path.read_text()) for name, path in PRODUCT.items()}
MODULES = {  # "core.data.idx" -> "core/data/idx.py"
    name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name
    for name in PRODUCT
}


def imports(name):
    """The full names of all that a file imports, wherever it does."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(module):
    """Of the product's own, those that a module imports."""
    found = set()
    for name in imports(MODULES[module]):
        while name not in MODULES and "." in name:
            name = name.rpartition(".")[0]
        found |= {name} & set(MODULES)
    return found


GRAPH = {module: imported_modules(module) for module in MODULES}


def reached(module):
    """All modules that an import of this one imports."""
    found, new = set(), {module}
    while new:
        found |= new
        new = {other for each in new for other in GRAPH[each]} - found
    return found


def part_of(module):
    """The part of core that a module is of: "data" of core.data.idx, "" of loop."""
    return f"{module}.".split(".")[1]


# --- Modules and their places ---------------------------------------------------------


def test_every_part_of_core_has_its_place():
    tell(
        f"{MODULES[module]}: {part_of(module)!r} has no place among the parts of core. "
        "Put the module into the folder of one that there is, or say in ORDER of "
        "tests/test_structure.py what the new part may import."
        for module in MODULES
        if part_of(module) and part_of(module) not in RANK
    )


def test_every_module_has_its_test():
    def test_of(name):
        folder, _, file = name.removeprefix("core/").rpartition("/")
        return "/".join(filter(None, ("tests", folder, f"test_{file}")))

    assert test_of("core/data/idx.py") == "tests/data/test_idx.py"
    assert test_of("core/rng.py") == "tests/test_rng.py"
    modules = {name for name in PRODUCT if not name.endswith("__init__.py")}
    assert modules > WITHOUT_TESTS
    tell(
        f"{name} has no test yet: write {test_of(name)}, with a test for each thing "
        "that the module promises."
        for name in sorted(modules - WITHOUT_TESTS)
        if not (ROOT / test_of(name)).exists()
    )


def test_imports_go_down_only():
    tell(
        f"{MODULES[module]} imports {other}, which does not come before it in the "
        f"order {', '.join(ORDER)}. Move what both need to an earlier part, or pass it "
        "as an argument."
        for module in GRAPH
        for other in sorted(GRAPH[module])
        if part_of(module) in RANK and part_of(other) in RANK
        if part_of(module) != part_of(other)
        and RANK[part_of(other)] >= RANK[part_of(module)]
    )


def test_core_knows_nothing_of_the_program_around_it():
    """And so a learner's notebook, or another program, can use it."""
    tell(
        f"{name} imports {other}: core does without flags, loop and absl, and writes "
        "its imports in full. Take what is needed as an argument."
        for name in CORE
        for other in imports(name)
        if other.split(".")[0] in ("flags", "loop", "absl", "None")
    )


def test_no_module_imports_itself_by_way_of_others():
    circles = []
    try:
        graphlib.TopologicalSorter(GRAPH).prepare()
    except graphlib.CycleError as error:
        circles.append(" <- ".join(error.args[1]))
    tell(f"Imports go round: {circle}. Cut one of them." for circle in circles)


def test_what_parts_never_reach():
    """Nothing mathematical downloads; evaluation and figures take a model and weights,
    whoever trained them."""
    for forbidden in NEVER.values():
        assert any(f"{module}.".startswith(f"{forbidden}.") for module in MODULES)
    tell(
        f"{MODULES[module]} imports {other}, by itself or by way of others, and "
        f"{part_of(module)} is not to reach {NEVER[part_of(module)]}: take what is "
        "needed as an argument."
        for module in MODULES
        for other in sorted(reached(module))
        if f"{other}.".startswith(f"{NEVER.get(part_of(module), 'nothing')}.")
    )


def test_flags_are_parsed_without_tensorflow():
    """Its import takes seconds, and a typo must show at once."""
    tell(
        f"{MODULES[module]} imports {other}, and flags.py imports that module: a typo "
        "on the command line would show only after TensorFlow's import. Move what "
        "flags.py needs to where there is no TensorFlow."
        for module in sorted(reached("flags"))
        for other in imports(MODULES[module])
        if other.split(".")[0] in ("tensorflow", "numpy", "matplotlib")
    )


# --- What is nowhere, or in few places ------------------------------------------------


def test_nothing_is_hidden_behind_keras():
    tell(
        f"{name} speaks of {found[0]!r}: every weight, gradient and random number is "
        "written out here in plain TensorFlow."
        for name, path in PRODUCT.items()
        if (found := re.findall(FORBIDDEN, path.read_text(), re.IGNORECASE))
    )


def test_figures_are_drawn_from_arrays_alone():
    tell(
        f"core/show/figures.py imports {name}: give it NumPy arrays."
        for name in imports("core/show/figures.py")
        if name.startswith("tensorflow")
    )


def test_flags_alone_knows_absl():
    tell(
        f"{name} imports {other}: settings come from core.settings, and flags.py alone "
        "makes flags of them."
        for name in PRODUCT
        for other in imports(name)
        if name != "flags.py" and other.startswith("absl")
    )


def test_variables_are_assigned_in_few_places():
    """Weights and moments by Adam, the step and an epoch's totals by the loop."""
    found = {
        (name, match)
        for name, path in PRODUCT.items()
        for match in re.findall(r"([\w.]+)\.assign", path.read_text())
    }
    tell(
        f"{name} assigns to {variable}: whoever looks for what changes the weights "
        "finds it in core/training/adam.py. Return the new value, and let loop.py or "
        "Adam assign it."
        for name, variable in sorted(found - ASSIGNED)
    )
    assert found == ASSIGNED


# --- Sizes ----------------------------------------------------------------------------


def functions(name):
    """(function, whether it is a method) of all in a file, inner ones included."""
    for node in ast.walk(TREES[name]):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                yield child, isinstance(node, ast.ClassDef)


def lines(function):
    """How many it has without its docstring."""
    count = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function):
        text = function.body[0]
        count -= text.end_lineno - text.lineno + 1
    return count


def arguments(function, is_method):
    """How many it takes, `self` not counted."""
    given = function.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    names += filter(None, (given.vararg, given.kwarg))
    static = "staticmethod" in map(ast.unparse, function.decorator_list)
    return len(names) - (is_method and not static)


def test_a_module_fits_on_a_few_screens():
    sizes = {name: len(path.read_text().splitlines()) for name, path in PRODUCT.items()}
    tell(
        f"{name} has {count} lines, and {LONGER.get(name, LONGEST_MODULE)} are the "
        "most: make two modules of it."
        for name, count in sizes.items()
        if count > LONGER.get(name, LONGEST_MODULE)
    )


def test_a_function_fits_on_a_screen():
    for name in PRODUCT:
        limits = {
            function.name: LONGER.get(f"{name} {function.name}", LONGEST_FUNCTION)
            for function, _ in functions(name)
        }
        tell(
            f"{name}: {function.name} has {lines(function)} lines besides its "
            f"docstring, and {limits[function.name]} are the most: make two functions "
            "of it."
            for function, _ in functions(name)
            if lines(function) > limits[function.name]
        )


def test_a_function_takes_few_arguments():
    for name in PRODUCT:
        tell(
            f"{name}: {function.name} takes {arguments(function, is_method)} arguments "
            f"of at most {MOST_ARGUMENTS}: make a record of those that belong together."
            for function, is_method in functions(name)
            if arguments(function, is_method)
            > MORE_ARGUMENTS.get(f"{name} {function.name}", MOST_ARGUMENTS)
        )


def test_exceptions_are_of_functions_that_there_are():
    known = {f"{name} {f.name}" for name in PRODUCT for f, _ in functions(name)}
    assert {*LONGER, *MORE_ARGUMENTS} <= known | set(PRODUCT)


def public(tree):
    """(dotted name, node) of every public function, class and method."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", n) for name, n in public(node))


def test_what_is_public_says_what_it_does():
    tell(
        f"{name}: {called} has no docstring: say in a sentence what it does, and in "
        "which shapes and units."
        for name, tree in TREES.items()
        for called, node in public(tree)
        if not ast.get_docstring(node)
    )


# --- The files that there are ---------------------------------------------------------


def top_level():
    """The names of what git has at the top, but for dot-files."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    if not any(listed):
        pytest.skip("not a git checkout")
    names = {name.split("/")[0] for name in listed if name}
    return {name for name in names if not name.startswith(".")}


def test_the_top_level_has_what_is_fixed():
    """Whoever works with it may have experiments and examples of their own beside."""
    tell(
        f"{name} is missing: it is part of the fixed top level. Put it back."
        for name in sorted(set(TOP_LEVEL) - top_level())
    )


@pytest.mark.slow
def test_the_top_level_has_nothing_else():
    """Of the project itself; it is asked only where that is tested as a whole."""
    tell(
        f"{name} is not of the project's fixed top level. What is your own may stay: "
        "add it to TOP_LEVEL in tests/test_structure.py. What the project needs goes "
        "into core, tests or checkpoints."
        for name in sorted(top_level() - set(TOP_LEVEL))
    )


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


def test_every_seeded_bug_has_its_place():
    """One whose line has changed would be seeded nowhere, and seen by nobody."""
    lost = [
        b[2] for b in mutations.bugs() if (ROOT / b[0]).read_text().count(b[2]) != 1
    ]
    assert not lost
