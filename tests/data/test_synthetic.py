import platform

import numpy as np
import pytest

from core import rng
from core.data import datasets, synthetic
from core.data.digits import checksum
from tests.conftest import program

DIGEST = "3c4b6877347599662d882da5a09fb8ccfa469478f8c285e3812e53033ec35181"


@pytest.fixture(scope="module")
def drawn():
    return synthetic.draw(0, sizes=(8000, 2000))


def features(digits):
    pixels = digits.images.reshape(len(digits.images), -1) / 255
    return np.column_stack([pixels, np.ones(len(pixels))])


def test_the_same_seed_draws_the_same_bytes():
    first, again, other = (synthetic.draw(s, sizes=(300, 100)) for s in (4, 4, 5))
    np.testing.assert_array_equal(first[0].images, again[0].images)
    np.testing.assert_array_equal(first[1].labels, again[1].labels)
    assert not np.array_equal(first[0].images, other[0].images)


def test_the_digits_are_the_published_ones_whatever_the_last_bits_are(monkeypatch):
    """Sines, exponentials and products that are off by a bit, as on some processors,
    change no pixel of them."""
    assert datasets.DIGESTS[DIGEST] == "synthetic"
    exp, sin, einsum = np.exp, np.sin, np.einsum

    def off(function, toward):
        def moved(*arguments):
            found = function(*arguments)
            every_other = np.arange(found.size).reshape(found.shape) % 2 == 0
            return np.where(every_other, np.nextafter(found, toward), found)

        return moved

    monkeypatch.setattr(np, "exp", off(exp, np.inf))
    monkeypatch.setattr(np, "sin", off(sin, -2.0))
    monkeypatch.setattr(np, "einsum", off(einsum, np.inf))
    moved = synthetic.draw()
    monkeypatch.undo()
    assert checksum(*moved) == DIGEST


def test_the_digits_are_drawn_with_numbers_that_are_exact():
    """Sums of whole numbers, scaled once: nothing of them depends on a processor."""
    values = synthetic._bell(rng.key(0, rng.Stream.SYNTHETIC, 3), (1000, 7))
    assert values.dtype == np.float64 and values.shape == (1000, 7)
    sums = values * np.sqrt(8 * (256**2 - 1) / 12) + 8 * 127.5
    np.testing.assert_allclose(sums, np.rint(sums), rtol=0, atol=1e-9)
    assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.03


def numpys_features():
    """The processor's instructions that NumPy has found and chooses among."""
    try:
        from numpy._core import _multiarray_umath as numpy
    except ImportError:
        from numpy.core import _multiarray_umath as numpy
    found = numpy.__cpu_features__
    return [name for name in numpy.__cpu_dispatch__ if found.get(name)]


@pytest.mark.slow
@pytest.mark.parametrize("library", ["as it is", "numpy", "openblas"])
def test_the_digits_are_the_same_on_another_processor(library):
    environments = {
        "as it is": {},
        "numpy": {"NPY_DISABLE_CPU_FEATURES": " ".join(numpys_features())},
        "openblas": {"OPENBLAS_CORETYPE": "Nehalem"},
    }
    if library == "openblas" and platform.machine() != "x86_64":
        pytest.skip("OpenBLAS knows no older processor of this kind")
    text = (
        "from core.data import digits, synthetic\n"
        "print(digits.checksum(*synthetic.draw()))"
    )
    process = program(script=("-c", text), env=environments[library])
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert output.strip() == DIGEST


def test_the_default_size_is_as_promised():
    sizes = synthetic.draw.__defaults__[-1]
    assert sizes[0] >= 25_000 and sizes[1] >= 4_000


def test_classes_are_balanced(drawn):
    for digits in drawn:
        assert digits.images.dtype == digits.labels.dtype == np.uint8
        counts = np.bincount(digits.labels, minlength=10)
        assert counts.min() == counts.max() == len(digits.labels) / 10


def test_ink_and_center_are_like_mnist(drawn):
    images = drawn[0].images.astype(float)
    assert 0.115 < images.mean() / 255 < 0.145  # MNIST: 0.1307
    assert images.max(axis=(1, 2)).min() > 200  # no digit is faint
    mass = images.sum(axis=(1, 2))
    for axis in (1, 2):
        center = images.sum(axis=axis) @ np.arange(28) / mass
        assert abs(center.mean() - 14.0) < 0.1  # MNIST: 14.0
        assert 0.2 < center.std() < 0.5  # MNIST: 0.29
    border = np.ones([28, 28], bool)
    border[1:-1, 1:-1] = False
    assert images[:, border].mean() < 1  # nothing is cut off


def test_a_linear_classifier_reaches_ninety_percent_but_not_all(drawn):
    x, y = features(drawn[0]), np.eye(10)[drawn[0].labels]
    weights = np.linalg.solve(x.T @ x + 10 * np.eye(785), x.T @ y)
    accuracy = np.mean((features(drawn[1]) @ weights).argmax(1) == drawn[1].labels)
    assert 0.90 <= accuracy < 0.99


def test_no_two_digits_are_alike(drawn):
    for label in range(10):
        x = features(drawn[1])[drawn[1].labels == label]
        squares = (x**2).sum(1)
        distance = squares[:, None] + squares - 2 * x @ x.T
        nearest = (distance + 1e9 * np.eye(len(x))).min(axis=1)
        assert nearest.min() > 0.1  # in squared units of full ink
        assert np.median(nearest) > (2 if label == 1 else 8)
