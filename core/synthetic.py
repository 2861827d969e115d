"""Handwriting-like digits drawn offline, as the same `Digits` that MNIST gives.

A digit is a few strokes, splines through control points in a unit box (x to the right,
y down). For each image a random smooth warp bends the box, then slant, turn, width,
size, position and pen vary; the pen leaves ink along the path, anti-aliased.
"""

import numpy as np

from core import rng
from core.mnist import SIDE, Digits

TRAIN_SIZE, TEST_SIZE = 25_000, 5_000
WAVES = 6  # in the warp
BOX = 19.6  # pixels from edge to edge of the ink, as MNIST's 20

# Digit -> the ways to write it -> strokes -> control points.
SKELETONS = {
    0: [
        [[(0.52, 0.0), (0.15, 0.2), (0.05, 0.55), (0.22, 0.93), (0.58, 0.99),
          (0.9, 0.68), (0.92, 0.3), (0.68, 0.03), (0.42, 0.03)]],
        [[(0.75, 0.1), (0.45, 0.0), (0.12, 0.3), (0.08, 0.7), (0.4, 1.0),
          (0.8, 0.82), (0.95, 0.4), (0.75, 0.05), (0.55, 0.1)]],
    ],
    1: [
        [[(0.5, 0.0), (0.5, 0.33), (0.5, 0.67), (0.5, 1.0)]],
        [[(0.32, 0.2), (0.42, 0.1), (0.52, 0.0)], [(0.52, 0.0), (0.51, 0.5), (0.5, 1.0)]],
        [[(0.3, 0.22), (0.52, 0.0)], [(0.52, 0.0), (0.51, 0.5), (0.5, 1.0)],
         [(0.28, 1.0), (0.5, 1.0), (0.74, 0.98)]],
    ],
    2: [
        [[(0.08, 0.22), (0.3, 0.02), (0.68, 0.02), (0.84, 0.27), (0.55, 0.65), (0.1, 0.97)],
         [(0.1, 0.97), (0.5, 0.94), (0.95, 0.97)]],
        [[(0.1, 0.2), (0.4, 0.0), (0.8, 0.15), (0.7, 0.5), (0.35, 0.85), (0.12, 0.97),
          (0.06, 0.85), (0.28, 0.8), (0.6, 0.96), (0.98, 0.88)]],
    ],
    3: [
        [[(0.1, 0.1), (0.45, 0.0), (0.8, 0.17), (0.68, 0.4), (0.38, 0.47)],
         [(0.38, 0.47), (0.78, 0.55), (0.88, 0.8), (0.52, 1.0), (0.08, 0.9)]],
        [[(0.12, 0.02), (0.5, 0.02), (0.85, 0.02)], [(0.85, 0.02), (0.62, 0.22), (0.42, 0.42)],
         [(0.42, 0.42), (0.8, 0.5), (0.88, 0.78), (0.5, 1.0), (0.08, 0.88)]],
    ],
    4: [
        [[(0.3, 0.02), (0.22, 0.3), (0.1, 0.58)], [(0.1, 0.58), (0.5, 0.6), (0.95, 0.54)],
         [(0.76, 0.05), (0.72, 0.5), (0.68, 1.0)]],
        [[(0.66, 0.0), (0.36, 0.32), (0.05, 0.66)], [(0.05, 0.66), (0.5, 0.66), (0.98, 0.62)],
         [(0.66, 0.0), (0.65, 0.5), (0.62, 1.0)]],
        [[(0.15, 0.0), (0.12, 0.3), (0.3, 0.48), (0.6, 0.44), (0.82, 0.3)],
         [(0.86, 0.0), (0.82, 0.3), (0.76, 0.65), (0.72, 1.0)]],
    ],
    5: [
        [[(0.88, 0.02), (0.55, 0.02), (0.25, 0.05)], [(0.25, 0.05), (0.21, 0.25), (0.17, 0.43)],
         [(0.17, 0.43), (0.5, 0.36), (0.85, 0.55), (0.8, 0.85), (0.48, 1.0), (0.08, 0.9)]],
        [[(0.92, 0.02), (0.55, 0.0), (0.28, 0.12), (0.25, 0.36), (0.6, 0.44),
          (0.86, 0.68), (0.6, 0.98), (0.1, 0.93)]],
    ],
    6: [
        [[(0.7, 0.0), (0.38, 0.22), (0.15, 0.58), (0.18, 0.88), (0.48, 1.0),
          (0.8, 0.84), (0.76, 0.6), (0.46, 0.53), (0.18, 0.74)]],
        [[(0.42, 0.0), (0.2, 0.35), (0.14, 0.75), (0.4, 0.99), (0.76, 0.92),
          (0.8, 0.7), (0.5, 0.62), (0.2, 0.82)]],
    ],
    7: [
        [[(0.05, 0.06), (0.5, 0.04), (0.92, 0.02)], [(0.92, 0.02), (0.66, 0.45), (0.45, 1.0)]],
        [[(0.05, 0.06), (0.5, 0.04), (0.92, 0.02)], [(0.92, 0.02), (0.66, 0.45), (0.45, 1.0)],
         [(0.38, 0.5), (0.62, 0.5), (0.88, 0.47)]],
        [[(0.06, 0.22), (0.12, 0.04), (0.5, 0.06), (0.86, 0.02), (0.78, 0.35), (0.6, 0.65),
          (0.52, 1.0)]],
    ],
    8: [
        [[(0.82, 0.14), (0.5, 0.0), (0.2, 0.17), (0.34, 0.42), (0.66, 0.58), (0.82, 0.82),
          (0.5, 1.0), (0.18, 0.82), (0.36, 0.58), (0.68, 0.38), (0.8, 0.16), (0.6, 0.02)]],
        [[(0.5, 0.46), (0.24, 0.3), (0.3, 0.06), (0.62, 0.02), (0.78, 0.24), (0.5, 0.46)],
         [(0.5, 0.46), (0.16, 0.66), (0.24, 0.95), (0.66, 0.98), (0.84, 0.7), (0.5, 0.46)]],
    ],
    9: [
        [[(0.82, 0.2), (0.52, 0.0), (0.16, 0.2), (0.28, 0.46), (0.62, 0.42), (0.82, 0.2)],
         [(0.82, 0.2), (0.8, 0.55), (0.7, 1.0)]],
        [[(0.8, 0.16), (0.46, 0.0), (0.14, 0.24), (0.36, 0.48), (0.72, 0.36), (0.82, 0.16),
          (0.84, 0.55), (0.66, 0.92), (0.22, 0.97)]],
    ],
}  # fmt: skip


def draw(seed: int = 0, train_size=TRAIN_SIZE, test_size=TEST_SIZE):
    """(training set, test set): ten balanced classes, the same bytes for a seed."""
    count = train_size + test_size
    labels = rng.permutation(_key(seed, 0), count).numpy() % 10
    choice = rng.uniform(_key(seed, 1), [count]).numpy()
    style = rng.normal(_key(seed, 2), [count, 8]).numpy()
    waves = rng.normal(_key(seed, 3), [count, WAVES, 5]).numpy()
    images = np.empty([count, SIDE, SIDE], np.uint8)
    for digit, variants in SKELETONS.items():
        variant = (choice * len(variants)).astype(int)
        for i, strokes in enumerate(variants):
            rows = np.flatnonzero((labels == digit) & (variant == i))
            for part in np.array_split(rows, len(rows) // 500 + 1):
                path, length = _paths(strokes, style[part], waves[part])
                images[part] = _ink(path, length, pen=_pen(style[part]))
    digits = Digits(images, labels.astype(np.uint8))
    return tuple(
        Digits(*(array[half] for array in digits))
        for half in (slice(train_size), slice(train_size, None))
    )


def _key(seed, index):
    return rng.key(seed, rng.Stream.SYNTHETIC, index)


def _pen(style):
    """The pen's radius (a standard deviation) in pixels, [n, 1, 1]."""
    return (1.15 * np.exp(0.19 * style[:, 0]))[:, None, None].clip(0.75, 1.8)


def _paths(strokes, style, waves):
    """Points along the pen's path [n, P, 2] in pixels, and the length at each [n, P]."""
    controls = _warp(np.array([point for stroke in strokes for point in stroke]), waves)
    path, length, first = [], [], 0
    for stroke in strokes:
        points = _spline(len(stroke)) @ controls[:, first : first + len(stroke)]
        path.append(points)
        first += len(stroke)
    turn, slant, width = 0.10 * style[:, 1], 0.26 * style[:, 2], 0.16 * style[:, 3]
    shape = np.stack(
        [
            np.stack([0.72 * np.exp(width), turn], axis=-1),
            np.stack([-turn - slant, np.ones_like(turn)], axis=-1),
        ],
        axis=1,
    )  # [n, 2, 2]: a row (x, y) times it is stretched, turned and slanted
    path = [points @ shape for points in path]
    everything = np.concatenate(path, axis=1)
    extent = np.ptp(everything, axis=1).max(axis=1)[:, None, None]
    size = BOX - 2.2 * _pen(style) + 0.7 * style[:, 4, None, None]
    path = [points * (size / extent) for points in path]
    length = np.concatenate([_arc_length(points) for points in path], axis=1)
    path = np.concatenate(path, axis=1)
    mass = length / length.sum(axis=1, keepdims=True)
    center = SIDE / 2 + 0.3 * style[:, None, 5:7]
    return path - (path * mass[..., None]).sum(axis=1, keepdims=True) + center, length


def _warp(points, waves):
    """Control points [C, 2] moved by a sum of random plane waves -> [n, C, 2].

    A wave is smooth, so strokes that meet in a point still meet after it.
    """
    frequency, direction, phase = waves[..., :2], waves[..., 2:4], waves[..., 4]
    angle = 3.6 * np.einsum("cd,nwd->nwc", points, frequency) + 3 * phase[..., None]
    return points + 0.036 * np.einsum("nwc,nwd->ncd", np.sin(angle), direction)


def _spline(count: int):
    """The matrix [P, count] that takes control points to a Catmull-Rom spline."""
    t = np.linspace(0, count - 1, 9 * (count - 1) + 1)[:, None]
    before = np.clip(np.floor(t), 0, count - 2)
    u = t - before
    weights = (
        (-u + 2 * u**2 - u**3) / 2,
        (2 - 5 * u**2 + 3 * u**3) / 2,
        (u + 4 * u**2 - 3 * u**3) / 2,
        (u**3 - u**2) / 2,
    )
    matrix = np.zeros([len(t), count])
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        column = np.clip(before + offset, 0, count - 1).astype(int)
        np.add.at(matrix, (np.arange(len(t)), column[:, 0]), weight[:, 0])
    return matrix


def _arc_length(points):
    """The length of path that each of the points [n, P, 2] stands for, [n, P]."""
    steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    return (np.pad(steps, ((0, 0), (1, 0))) + np.pad(steps, ((0, 0), (0, 1)))) / 2


def _ink(path, length, pen):
    """uint8 images [n, 28, 28]: the path [n, P, 2] under a pen of Gaussian profile.

    exp(-(dx^2 + dy^2)) is a product, so the sum over the path is a matrix product.
    """
    pixels = np.arange(SIDE)[:, None]
    x, y = (
        np.exp(-((pixels - path[:, None, :, i]) ** 2) / (2 * pen**2)).astype(np.float32)
        for i in (0, 1)
    )  # [n, 28, P]
    density = (y * length[:, None]) @ x.transpose(0, 2, 1)
    profile = density / (np.sqrt(2 * np.pi) * pen)  # 1 in the middle of a stroke
    return np.rint(255 * np.clip(1.75 * profile - 0.42, 0, 1)).astype(np.uint8)
