"""How well simple classifiers tell the digits apart by their posterior means.

NumPy alone. Both learn from the training set's labels and are tested on the test set's.
"""

import numpy as np

from core import progress

NEIGHBORS = 10
RIDGE = 1e-3  # times the number of images
KNOWN = 60_000  # training images, MNIST's number: the first so many are neighbors
CHUNK = 25  # test images at a time: bounds the memory


def nearest_neighbors_accuracy(z, labels, test_z, test_labels) -> float:
    """The share of `test_labels` [T] that 10 neighbors among z [N, D] vote for.

    Neighbors by Euclidean distance; of classes with equal votes the lowest is taken.
    """
    if len(z) > KNOWN:
        progress.say(f"Neighbors are the first {KNOWN:,} of {len(z):,} training images")
    z, labels = z[:KNOWN], labels[:KNOWN]
    k, right = min(NEIGHBORS, len(z)), 0
    squares = np.sum(z * z, axis=1)
    ballots = np.eye(int(labels.max()) + 1, dtype=np.int32)
    with progress.bar(len(test_z), "image", "nearest neighbors", delay=1) as bar:
        for i in range(0, len(test_z), CHUNK):
            distances = squares - 2 * test_z[i : i + CHUNK] @ z.T
            nearest = labels[np.argpartition(distances, k - 1, axis=1)[:, :k]]
            found = np.argmax(ballots[nearest].sum(axis=1), axis=1)
            right += np.sum(found == test_labels[i : i + CHUNK])
            bar.update(len(found))
    return float(right / len(test_z))


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
