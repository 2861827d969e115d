import itertools

import numpy as np
import pytest
import tensorflow as tf

from core import rng
from core.rng import Stream


def test_different_triples_have_different_keys():
    seeds = (0, 1, rng.MAX_SEED)
    indices = (0, 1, 2, 1000, rng.MAX_INDEX - 1)
    triples = list(itertools.product(seeds, Stream, indices))
    keys = {tuple(rng.key(*triple).numpy()) for triple in triples}
    assert len(keys) == len(triples)


def test_numbers_are_the_same_in_eager_and_graph_mode():
    draw = tf.function(lambda i: rng.uniform(rng.key(5, Stream.POSTERIOR, i), [1000]))
    eager = rng.uniform(rng.key(5, Stream.POSTERIOR, 7), [1000])
    np.testing.assert_array_equal(draw(tf.constant(7)), eager)


def test_the_generator_stays_what_it_was():
    """A run that was stopped under an older version goes on with the same numbers."""
    key = rng.key(3, Stream.POSTERIOR, 12345)
    np.testing.assert_allclose(
        rng.normal(key, [3]), [1.7242575, -2.0070829, 0.5167511], rtol=1e-5
    )
    assert rng.random_bytes(key, 5).numpy().tolist() == [203, 220, 3, 226, 139]
    assert rng.permutation(key, 8).numpy().tolist() == [3, 0, 5, 6, 4, 1, 2, 7]


def test_bytes_are_uniform():
    counts = np.bincount(
        rng.random_bytes(rng.key(0, Stream.BINARIZE, 0), 2_560_001), minlength=256
    )
    assert counts.sum() == 2_560_001
    chi_square = np.sum((counts - 10_000) ** 2 / 10_000)
    assert 150 < chi_square < 380  # 255 degrees of freedom; beyond 5 sigma


def test_normal_numbers_are_standard_normal():
    numbers = rng.normal(rng.key(0, Stream.POSTERIOR, 0), [100_000]).numpy()
    assert abs(numbers.mean()) < 0.02
    assert abs(numbers.std() - 1) < 0.01
    assert abs(np.mean(numbers**4) - 3) < 0.15


def test_permutation_holds_every_number_once():
    order = rng.permutation(rng.key(0, Stream.SHUFFLE, 3), 1000).numpy()
    assert not np.array_equal(order, np.arange(1000))
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))


@pytest.mark.parametrize("shape", [(1, 50, 20), (150,), (3,)], ids=str)
def test_a_row_does_not_depend_on_which_rows_are_drawn_together(shape):
    """Sizes of and of no multiple of four, the numbers in an output of Philox."""
    key = rng.key(3, Stream.POSTERIOR, 0)
    long = rng.normal_rows(key, 0, (100, *shape)).numpy()
    short = rng.normal_rows(key, 37, (10, *shape)).numpy()
    np.testing.assert_array_equal(long[37:47], short)
    flat = long.reshape(100, -1)
    assert len(np.unique(flat)) > 0.999 * flat.size  # no row overlaps another
    far = rng.normal_rows(key, 2**40, (2, *shape)).numpy()
    assert np.abs(far - long[:2]).min() > 0


def test_rows_differ_by_key_and_lane_and_are_standard_normal():
    tables = [
        rng.normal_rows(rng.key(seed, stream, 0), 0, (1000, 51), lane).numpy()
        for seed, stream, lane in (
            (0, Stream.POSTERIOR, 0),
            (1, Stream.POSTERIOR, 0),
            (0, Stream.LIKELIHOOD, 0),
            (0, Stream.POSTERIOR, 1),
        )
    ]
    for i, table in enumerate(tables):
        assert abs(table.mean()) < 0.02 and abs(table.std() - 1) < 0.01
        assert abs(np.mean(table**4) - 3) < 0.15
        for other in tables[:i]:
            assert abs(np.corrcoef(table.ravel(), other.ravel())[0, 1]) < 0.02
            assert len(np.intersect1d(table, other)) < 200  # of 51,000, by chance


def test_the_table_stays_what_it_was():
    """A run that goes on under another version draws the same numbers."""
    found = rng.normal_rows(rng.key(3, Stream.POSTERIOR, 0), 12345, (1, 3), lane=2)
    np.testing.assert_allclose(
        found[0], [-0.0499025, -0.6788899, -0.6372263], rtol=1e-5
    )
