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
    k = min(NEIGHBORS, len(z))
    classes = int(max(labels.max(), test_labels.max())) + 1
    squares = np.sum(z * z, axis=1)
    right = 0
    shown = progress.bar(len(test_z), "image", "nearest neighbors", delay=1)
    for i in range(0, len(test_z), CHUNK):
        distances = squares - 2 * test_z[i : i + CHUNK] @ z.T
        nearest = labels[np.argpartition(distances, k - 1, axis=1)[:, :k]]
        votes = np.eye(classes, dtype=np.int32)[nearest].sum(axis=1)
        right += np.sum(np.argmax(votes, axis=1) == test_labels[i : i + CHUNK])
        shown.update(len(votes))
    shown.close()
    return float(right / len(test_z))


def linear_accuracy(z, labels, test_z, test_labels) -> float:
    """The share of `test_labels` [T] that ridge regression onto one-hot labels finds.

    In closed form, on standardized z [N, D] and a constant: W = (Z'Z + r N I)^-1 Z'Y.
    """
    mean, scale = z.mean(axis=0), z.std(axis=0) + 1e-8
    classes = int(max(labels.max(), test_labels.max())) + 1

    def features(z):
        return np.column_stack([(z - mean) / scale, np.ones(len(z))]).astype(np.float64)

    inputs = features(z)
    penalty = RIDGE * len(z) * np.eye(inputs.shape[1])
    w = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ np.eye(classes)[labels])
    return float(np.mean(np.argmax(features(test_z) @ w, axis=1) == test_labels))
