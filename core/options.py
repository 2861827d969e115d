"""Kinds of settings: what a value of each must be, in words and as a test."""

import dataclasses

MAX_COUNT = 10**9
HUGE = 3.4e38  # the largest float32, nearly


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


def number(default: float, help: str, expected: str, works):
    """`works` is asked of numbers alone."""
    return option(
        default, help, expected, lambda x: type(x) in (int, float) and works(x)
    )


def not_negative(default: float, help: str):
    """A finite number, at least 0."""
    return number(
        default, help, "a finite number, at least 0", lambda x: 0 <= x <= HUGE
    )


def decay(default: float, help: str):
    """A decay of a moving average."""
    return number(default, help, "a number in [0, 1)", lambda x: 0 <= x < 1)


def choice(default: str, help: str, *choices: str):
    """One of several words."""
    expected = "one of " + ", ".join(choices)
    return option(default, help, expected, lambda s: s in choices, choices)


def sizes(default: tuple, help: str, number=None):
    """Positive sizes; `number` of them, or one at least."""
    expected = f"{number or ''} positive sizes joined by commas, such as 512,256"
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


def folder(default: str, help: str):
    """A folder's name; the empty one means none."""
    return option(
        default,
        help,
        r"a folder's name, without any of * ? [ ] \ (TensorFlow matches patterns)",
        lambda name: (
            type(name) is str
            and bool(name or not default)
            and not set(name) & set("*?[]\\\0")
        ),
    )
