"""How well simple classifiers tell the digits apart by their posterior means.

NumPy alone. Both learn from the training set's labels and are tested on the test set's.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from core import progress

NEIGHBORS = 10
RIDGE = 1e-3  # times the number of images
KNOWN = 60_000  # training images, MNIST's number: the first so many are neighbors
CHUNK = 25  # test images at a time: bounds the memory
THREADS = 2  # chunks at a time
STRIDES = 64  # a row of distances is searched as so many


def nearest_neighbors_accuracy(z, labels, test_z, test_labels) -> float:
    """The share of `test_labels` [T] that 10 neighbors among z [N, D] vote for.

    Neighbors by Euclidean distance; of classes with equal votes the lowest is taken.
    """
    if len(z) > KNOWN:
        progress.say(f"Neighbors are the first {KNOWN:,} of {len(z):,} training images")
    z, labels = z[:KNOWN], labels[:KNOWN]
    k, right = min(NEIGHBORS, len(z)), 0
    missing = -len(z) % STRIDES
    squares = np.pad(np.sum(z * z, axis=1), (0, missing), constant_values=np.inf)
    z, labels = np.pad(z, ((0, missing), (0, 0))), np.pad(labels, (0, missing), "edge")
    ballots = np.eye(int(labels.max()) + 1, dtype=np.int32)

    def vote(first):
        distances = squares - 2 * test_z[first : first + CHUNK] @ z.T
        nearest = labels[smallest(distances, k)]
        return np.argmax(ballots[nearest].sum(axis=1), axis=1)

    firsts = range(0, len(test_z), CHUNK)
    bar = progress.bar(len(test_z), "image", "nearest neighbors", delay=1)
    with bar, ThreadPoolExecutor(THREADS) as pool:
        for first, found in zip(firsts, pool.map(vote, firsts), strict=True):
            right += np.sum(found == test_labels[first : first + CHUNK])
            bar.update(len(found))
    return float(right / len(test_z))


def smallest(rows: np.ndarray, k: int) -> np.ndarray:
    """Where the k smallest numbers of each row [Q, N] are, [Q, k], in any order; N is a
    multiple of STRIDES. They are in at most k of the columns into which a row can be
    laid; to look for the least of each column first takes a tenth of the time."""
    laid = rows.reshape(len(rows), STRIDES, -1)
    few = min(k, laid.shape[2])
    columns = np.argpartition(laid.min(axis=1), few - 1, axis=1)[:, None, :few]
    numbers = np.take_along_axis(laid, columns, axis=2).reshape(len(rows), -1)
    chosen = np.argpartition(numbers, k - 1, axis=1)[:, :k]
    places = columns + laid.shape[2] * np.arange(STRIDES)[:, None]
    return np.take_along_axis(places.reshape(len(rows), -1), chosen, axis=1)


def linear_accuracy(z, labels, test_z, test_labels) -> float:
    """The share of `test_labels` [T] that ridge regression onto one-hot labels finds.

    In closed form, on standardized z [N, D] and a constant: W = (Z'Z + r N I)^-1 Z'Y.
    """
    mean, scale = z.mean(axis=0), z.std(axis=0) + 1e-8

    def features(z):
        return np.column_stack([(z - mean) / scale, np.ones(len(z))]).astype(np.float64)

    inputs, one_hot = features(z), np.eye(int(labels.max()) + 1)[labels]
    penalty = RIDGE * len(z) * np.eye(inputs.shape[1])
    w = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ one_hot)
    return float(np.mean(np.argmax(features(test_z) @ w, axis=1) == test_labels))
