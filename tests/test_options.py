import dataclasses

import pytest

from core import options

KINDS = {  # kind of option -> (made, values that work, values that do not)
    "whole": (options.whole(3, "h", 1, 5), (1, 5), (0, 6, 2.0, True, "3", None)),
    "not negative": (options.not_negative(1.0, "h"), (0, 2.5), (-1e-9, "1", True)),
    "decay": (options.decay(0.5, "h"), (0, 0.999), (1, -0.1, "0", False)),
    "choice": (options.choice("a", "h", "a", "b"), ("a", "b"), ("c", "", None, 1)),
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
    field = options.choice("b", "Which one.", "a", "b")
    assert isinstance(field, dataclasses.Field) and field.default == "b"
    assert field.metadata["help"] == "Which one."
    assert field.metadata["expected"] == "one of a, b"
    assert options.whole(1, "h", 0, 2000).metadata["expected"] == (
        "a whole number from 0 to 2,000"
    )
