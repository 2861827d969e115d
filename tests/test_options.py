import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from core import options

KINDS = {  # kind of option -> (made, values that work, values that do not)
    "whole": (options.whole(3, "h", 1, 5), (1, 5), (0, 6, 2.0, True, "3", None)),
    "number": (options.number(1.0, "h"), (0, 0.0, 2.5), (-1e-9, "1", True, None)),
    "not zero": (options.number(1.0, "h", zero=False), (2.5, 1), (0, 0.0, -1, "1")),
    "decay": (options.decay(0.5, "h"), (0, 0.999), (1, -0.1, "0", False)),
    "folder": (
        options.folder("", "h"),
        ("", "b/.c", "ä b", "~", "~/a", "./~a", "./-a", "a:b", "a~"),
        ("-", "--a", "-a=b", "s3://a", "file:///a", "a*", "a?", "[a", "a]")
        + ("a\\b", "a\0b", "~nobody.at.all", "~nobody.at.all/a", None, 5, b"a"),
    ),
    "a folder that has a name": (options.folder("a", "h"), ("b", "~/a"), ("", "-")),
    "images": (
        options.folder("", "h", ""),
        ("", "~/a", "digits [1]", "a*?\\"),
        ("--a", "http://a", "gs://a", "a\0b", "~nobody.at.all/a", None, 5),
    ),
    "choice": (options.choice("a b", "h"), ("a", "b"), ("c", "", None, 1)),
    "sizes": (options.sizes((1,), "h"), ((1,), (2, 3)), ((), (0,), [1], (1.0,), "1")),
    "a pair": (options.sizes((1, 2), "h", 2), ((3, 4),), ((1,), (1, 2, 3))),
    "switch": (options.switch(True, "h"), (True, False), (0, 1, "true", None)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_option_lets_through_what_works(kind):
    field, good, bad = KINDS[kind]
    works = field.metadata["works"]
    assert works(field.default) and all(map(works, good))
    assert not any(map(works, bad))


def test_an_option_carries_its_help_and_what_is_expected():
    field = options.choice("b a", "Which one.")
    assert isinstance(field, dataclasses.Field) and field.default == "b"
    assert field.metadata["help"] == "Which one."
    assert field.metadata["expected"] == "one of b, a"
    assert options.whole(1, "h", 0, 2000).metadata["expected"] == (
        "a whole number from 0 to 2,000"
    )


def test_a_home_with_a_patterns_letters_is_one(monkeypatch):
    """What a folder is called is decided after ~ is what it stands for."""
    works = options.folder("a", "h").metadata["works"]
    monkeypatch.setenv("HOME", "/homes/a[1]")
    assert not works("~/run") and works("./~/run")
    assert options.folder("", "h", "").metadata["works"]("~/run")


NUMBERS = [5e-324, 1e-50, 1e-46, 1e-45, 1e-40, 1.1e-38, 1.2e-38, 1e-30, 1e-8, 0.5, 1.0]
NUMBERS += [0.9, 0.9999999, 0.99999998, 1 - 1e-16, 1e30, 3.4e38, 3.5e38, 1e39, 1e300]


@pytest.mark.parametrize("value", NUMBERS)
def test_a_number_works_where_float32_can_hold_it(value):
    """Neither as 0, nor as what a processor may flush to 0, nor as infinity."""
    with np.errstate(over="ignore", under="ignore"):
        held = np.float32(value)
    holds = bool(np.finfo(np.float32).tiny <= held < np.inf)
    for zero in (True, False):
        works = options.number(1.0, "h", zero=zero).metadata["works"]
        assert works(value) == holds and not works(-value) and works(0.0) == zero
    assert options.decay(0.5, "h").metadata["works"](value) == bool(held < 1)


def test_a_number_says_its_bounds():
    expected = "a number from 1.2e-38 to 3.4e+38"
    assert options.number(1.0, "h", zero=False).metadata["expected"] == expected
    assert options.number(1.0, "h").metadata["expected"] == f"0 or {expected}"
    assert (
        options.decay(0.5, "h").metadata["expected"] == "a number from 0 to 0.9999999"
    )
    assert "1,000,000,000" in options.sizes((1,), "h").metadata["expected"]


def test_a_folder_that_is_no_pattern_says_so():
    for letter in "*?[]\\":
        assert letter in options.folder("a", "h").metadata["expected"]
        assert letter not in options.folder("", "h", "").metadata["expected"]


SPELLINGS = {  # of a folder's name -> the one that is kept
    "a/": "a",
    "a//b/.": "a/b",
    "./a": "a",
    ".": ".",
    "a/../b": "b",
    "/a/": "/a",
    "~": "/home/me",
    "~/": "/home/me",
    "~/a/": "/home/me/a",
    "./~": "./~",
    "./~a/": "./~a",
    ".//-a": "./-a",
    "": "",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_folder_has_one_spelling(name, monkeypatch):
    """Which is its own spelling, and works: what a run keeps is read again."""
    monkeypatch.setenv("HOME", "/home/me")
    field = options.folder("a", "h")
    if not name:
        field = options.folder("", "h")
    for field.name in ("run_dir", "start_from"):
        kept = options.as_folder(field, name)
        assert field.metadata["works"](kept) and options.as_folder(field, kept) == kept
        expected = SPELLINGS[name]
        if field.name == "start_from" and name:
            expected = os.path.abspath(expected)
        assert kept == expected


def test_a_folder_beyond_a_link_is_the_one_that_the_system_means(tmp_path, monkeypatch):
    """Where .. comes after a link, it is not the folder that has the link."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    field = options.folder("a", "h")
    field.name = "run_dir"
    assert options.as_folder(field, "link/../c") == str(tmp_path / "a" / "c")
    assert options.as_folder(field, "link/d") == "link/d"


def test_pythons_own_values_are_as_those_of_the_command_line():
    for value in (np.float64(0.5), np.int64(3), Path("a/b"), "a", True, 3, 0.5, (1, 2)):
        found = options.plain(value)
        assert found == (str(value) if isinstance(value, Path) else value)
        assert type(found) in (float, int, str, bool, tuple)
    assert type(options.plain(np.bool_(True))) is bool
    array = np.ones(3)
    assert options.plain(array) is array  # to be refused


def test_quotes_that_a_shell_did_not_take_away_are_a_slip():
    works = options.folder("a", "h").metadata["works"]
    assert not works('"a b"') and not works("'a'") and not works("'")
    assert works("it's") and works("'s-Gravenhage")


def test_a_folder_to_start_from_is_found_in_a_folder_with_a_patterns_letters(
    tmp_path, monkeypatch
):
    """TensorFlow can read what is named from there, and not by its whole path."""
    (tmp_path / "a[1]").mkdir()
    monkeypatch.chdir(tmp_path / "a[1]")
    field = options.folder("", "h")
    field.name = "start_from"
    assert options.as_folder(field, "b/") == "b"
    field = options.folder("", "h", "")
    field.name = "data_dir"
    assert options.as_folder(field, "b/") == str(tmp_path / "a[1]" / "b")
