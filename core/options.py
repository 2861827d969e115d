"""Kinds of settings: what a value of each must be, in words and as a test."""

import dataclasses
import os
import re

MAX_COUNT = 10**9
TINY, HUGE, BELOW_ONE = 1.2e-38, 3.4e38, 0.9999999  # what float32 can tell


def option(default, help: str, expected: str, works, choices=(), form=""):
    """A field of a record: its default, its help, which values work, and the form of
    one where the default is none."""
    metadata = dict(help=help, expected=expected, works=works, choices=choices)
    metadata["form"] = form
    return dataclasses.field(default=default, metadata=metadata)


def plain(value):
    """A value as the command line would give it, of what Python may have instead: a
    NumPy number, or a `Path`."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "dtype") and value.ndim == 0 else value


def _between(value, low, high, types=(int, float)) -> bool:
    return type(value) in types and low <= value <= high


def whole(default: int, help: str, low=1, high=MAX_COUNT):
    """A whole number between two limits, both included."""
    expected = f"a whole number from {low} to {high:,}"
    return option(default, help, expected, lambda n: _between(n, low, high, [int]))


def number(default: float, help: str, zero=True):
    """A float32 that is not so small that it is 0 there; 0 itself only if it works."""

    def works(x):
        return _between(x, TINY, HUGE) or zero and _between(x, 0, 0)

    expected = f"{'0 or ' * zero}a number from {TINY} to {HUGE}"
    return option(default, help, expected, works)


def decay(default: float, help: str):
    """A decay of a moving average."""
    expected = f"a number from 0 to {BELOW_ONE}"
    return option(default, help, expected, lambda x: _between(x, 0, BELOW_ONE))


def choice(words: str, help: str):
    """One of several words; the first is the default."""
    choices = tuple(words.split())
    expected = "one of " + ", ".join(choices)
    return option(choices[0], help, expected, lambda s: s in choices, choices)


def sizes(default: tuple, help: str, count=None):
    """Positive sizes; `count` of them, or one at least."""

    def works(value):
        of_length = type(value) is tuple and 0 < len(value) == (count or len(value))
        return of_length and all(_between(n, 1, MAX_COUNT, [int]) for n in value)

    expected = f"positive sizes joined by commas, of at most {MAX_COUNT:,} each"
    return option(default, help, f"{count or ''} {expected}".strip(), works)


def text(form: str, help: str, pattern: str):
    """Text of a pattern, as in `form`, or none."""

    def works(s):
        return type(s) is str and bool(re.fullmatch(f"({pattern})?", s, re.ASCII))

    return option("", help, f"text as in {form}", works, form=form)


def switch(default: bool, help: str):
    """True or false."""
    return option(default, help, "true or false", lambda b: type(b) is bool)


def folder(default: str, help: str, without="*?[]\\"):
    """A folder's name; none at all, if that is the default. Only a slip can have meant
    a swallowed flag, a URL, the home of nobody, quotes around it, or what is `without`,
    which TensorFlow would take for a pattern."""

    def works(name):
        if type(name) is not str or default and not name:
            return False
        whole = os.path.expanduser(name)
        slip = name.startswith("-") or "://" in name or whole.startswith("~")
        slip |= name[:1] in ("'", '"') and name[:1] == name[-1:]  # in a flagfile
        slip |= any("\ud800" <= c <= "\udfff" for c in name)  # a byte of no UTF-8
        return not slip and not set(whole) & {"\0", *without}

    expected = "the name of a folder on this machine"
    expected += f", without any of {' '.join(without)}" if without else ""
    return option(default, help, expected, works, form="FOLDER")


def as_folder(field, name: str) -> str:
    """The one spelling of a folder's name, which is its own. What a run reads is found
    from anywhere, but where its whole name would not work."""
    if not name:
        return name
    home = os.path.expanduser(name)
    name = os.path.normpath(home)
    if os.path.realpath(name) != os.path.realpath(home):  # beyond a link, .. is another
        name = os.path.realpath(home)
    whole = os.path.abspath(name)
    if field.name != "run_dir" and field.metadata["works"](whole):
        return whole
    return os.path.join(".", name) if name[0] in "~-" else name
