"""Kinds of settings: what a value of each must be, in words and as a test."""

import dataclasses
import os

MAX_COUNT = 10**9
TINY, HUGE, BELOW_ONE = 1.2e-38, 3.4e38, 0.9999999  # what float32 can tell


def option(default, help: str, expected: str, works, choices=()):
    """A field of a record: its default, its help, and which values work."""
    metadata = dict(help=help, expected=expected, works=works, choices=choices)
    return dataclasses.field(default=default, metadata=metadata)


def whole(default: int, help: str, low=1, high=MAX_COUNT):
    """A whole number between two limits, both included."""
    expected = f"a whole number from {low} to {high:,}"
    return option(
        default, help, expected, lambda n: type(n) is int and low <= n <= high
    )


def number(default: float, help: str, zero=True):
    """A float32 that is not so small that it is 0 there; 0 itself only if it works."""
    expected = f"{'0 or ' * zero}a number from {TINY:.1e} to {HUGE:.1e}"
    return option(
        default,
        help,
        expected,
        lambda x: type(x) in (int, float) and (TINY <= x <= HUGE or zero and x == 0),
    )


def decay(default: float, help: str):
    """A decay of a moving average."""
    expected = f"a number from 0 to {BELOW_ONE}"
    return option(
        default,
        help,
        expected,
        lambda x: type(x) in (int, float) and 0 <= x <= BELOW_ONE,
    )


def choice(default: str, help: str, *choices: str):
    """One of several words."""
    expected = "one of " + ", ".join(choices)
    return option(default, help, expected, lambda s: s in choices, choices)


def sizes(default: tuple, help: str, number=None):
    """Positive sizes; `number` of them, or one at least."""
    expected = (
        f"{number or ''} positive sizes joined by commas, such as 512,256, of at "
    )
    expected += f"most {MAX_COUNT:,} each"
    return option(
        default,
        help,
        expected.strip(),
        lambda sizes: (
            type(sizes) is tuple
            and len(sizes) > 0
            and (number is None or len(sizes) == number)
            and all(type(n) is int and 0 < n <= MAX_COUNT for n in sizes)
        ),
    )


def switch(default: bool, help: str):
    """True or false."""
    return option(default, help, "true or false", lambda b: type(b) is bool)


def folder(default: str, help: str, without="*?[]\\"):
    """A folder's name. Only a slip can have meant a swallowed flag, a URL, the home of
    nobody, or what is `without`, which TensorFlow would take for a pattern."""
    expected = "the name of a folder on this machine"
    expected += f", without any of {' '.join(without)}" if without else ""
    return option(
        default,
        help,
        expected,
        lambda name: (
            type(name) is str
            and not name.startswith("-")
            and "://" not in name
            and not os.path.expanduser(name).startswith("~")
            and not set(os.path.expanduser(name)) & {"\0", *without}
        ),
    )


def as_folder(field, name: str) -> str:
    """The one spelling of a folder's name, which is its own. What a run reads is found
    from anywhere, but where its whole name would not work."""
    if not name:
        return name
    name = os.path.normpath(os.path.expanduser(name))
    whole = os.path.abspath(name)
    if field.name != "run_dir" and field.metadata["works"](whole):
        return whole
    return os.path.join(".", name) if name[0] in "~-" else name
