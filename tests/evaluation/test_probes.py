import contextlib

import numpy as np
import pytest

from core import progress
from core.evaluation import probes


def clusters(count, random, scale=1.0):
    """(points around ten corners [count, 4], which corner [count])."""
    centers = 3.0 * np.array(
        [[i & 1, i >> 1 & 1, i >> 2 & 1, i >> 3] for i in range(10)]
    )
    labels = random.integers(0, 10, count).astype(np.uint8)
    noise = scale * random.standard_normal([count, 4])
    return (centers[labels] + noise).astype(np.float32), labels


def test_neighbors_agree_with_a_search_by_hand(monkeypatch):
    random = np.random.default_rng(0)
    z, labels = clusters(300, random)
    test_z, test_labels = clusters(50, random)
    right = 0
    for point, label in zip(test_z, test_labels, strict=True):
        nearest = np.argsort(np.sum((z - point) ** 2, axis=1))[:10]
        right += np.argmax(np.bincount(labels[nearest], minlength=10)) == label
    monkeypatch.setattr(probes, "CHUNK", 7)
    found = probes.nearest_neighbors_accuracy(z, labels, test_z, test_labels)
    assert found == pytest.approx(right / 50) and 0.5 < found < 1


@pytest.mark.parametrize("count", [64, 128, 6400])
@pytest.mark.parametrize("k", [1, 10, 64])
def test_the_smallest_numbers_are_found_wherever_they_are(count, k):
    random = np.random.default_rng(0)
    rows = random.permuted(np.tile(np.arange(count), (30, 1)), axis=1)
    rows[0] = np.sort(rows[0])  # neighbors in a row
    rows[1] = np.sort(rows[1]).reshape(64, -1).T.ravel()  # and in a column
    found = np.take_along_axis(rows, probes.smallest(rows, k), axis=1)
    np.testing.assert_array_equal(np.sort(found), np.tile(np.arange(k), (30, 1)))


def test_points_that_are_no_numbers_have_neighbors_all_the_same():
    """As those of weights that overflow: a bad score, and no mistake of the program."""
    random = np.random.default_rng(0)
    (z, labels), asked = clusters(70, random), clusters(9, random)
    found = probes.nearest_neighbors_accuracy(np.nan * z, labels, *asked)
    assert 0 <= found < 1


def test_neighbors_are_among_the_first_training_images(monkeypatch):
    """So many as MNIST has, each with its own label: a larger set would take hours."""
    assert probes.KNOWN == 60_000
    random = np.random.default_rng(0)
    z, labels = clusters(300, random)
    asked = clusters(50, random)
    first = probes.nearest_neighbors_accuracy(z[:120], labels[:120], *asked)
    whole = probes.nearest_neighbors_accuracy(z, labels, *asked)
    monkeypatch.setattr(probes, "KNOWN", 120)
    assert probes.nearest_neighbors_accuracy(z, labels, *asked) == first != whole


def test_it_is_said_if_some_are_left_out(monkeypatch, capsys):
    random = np.random.default_rng(0)
    known, asked = clusters(300, random), clusters(50, random)
    probes.nearest_neighbors_accuracy(*known, *asked)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(probes, "KNOWN", 120)
    probes.nearest_neighbors_accuracy(*known, *asked)
    output = capsys.readouterr().out
    assert "120" in output and "300" in output and output.count("\n") == 1


def test_the_search_moves_a_bar_to_its_end(monkeypatch):
    moved, random = [], np.random.default_rng(0)

    class Bar(contextlib.nullcontext):
        def __enter__(self):
            return self

        def __exit__(self, *error):
            moved.append("closed")

        def update(self, count):
            moved.append(count)

    def bar(total, *rest, **more):
        moved.append(total)
        return Bar()

    monkeypatch.setattr(progress, "bar", bar)
    monkeypatch.setattr(probes, "CHUNK", 7)
    probes.nearest_neighbors_accuracy(*clusters(30, random), *clusters(17, random))
    assert moved == [17, 7, 7, 3, "closed"]


def test_the_linear_probe_is_the_solution_of_least_squares():
    random = np.random.default_rng(0)
    z, labels = clusters(400, random)
    test_z, test_labels = clusters(100, random)
    mean, scale = z.mean(0), z.std(0)
    inputs = np.column_stack([(z - mean) / scale, np.ones(400)])
    ridge = np.sqrt(1e-3 * 400) * np.eye(5)
    targets = np.vstack([np.eye(10)[labels], np.zeros([5, 10])])
    w, *_ = np.linalg.lstsq(np.vstack([inputs, ridge]), targets, rcond=None)
    tested = np.column_stack([(test_z - mean) / scale, np.ones(100)])
    expected = np.mean(np.argmax(tested @ w, axis=1) == test_labels)
    assert probes.linear_accuracy(z, labels, test_z, test_labels) == expected


def test_noise_tells_nothing_and_far_clusters_everything():
    random = np.random.default_rng(0)
    z, labels = clusters(500, random, scale=0.1)
    for probe in (probes.nearest_neighbors_accuracy, probes.linear_accuracy):
        shuffled = probe(z, random.permutation(labels), z, labels)
        assert shuffled < 0.35
    assert probes.nearest_neighbors_accuracy(z, labels, *clusters(99, random, 0.1)) == 1


def test_a_latent_that_never_varies_is_no_trouble():
    z, labels = np.zeros([20, 2], np.float32), np.arange(20, dtype=np.uint8) % 2
    assert probes.linear_accuracy(z, labels, z, labels) == 0.5
