import numpy as np
import pytest

from core.data import synthetic


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
