"""Handwriting-like digits drawn offline, as the same `Digits` that MNIST gives.

A digit is a few strokes, splines through control points in a unit box (x to the right,
y down). For each image a random smooth warp bends the box, then slant, turn, width,
size, position and pen vary; the pen leaves ink along the path, anti-aliased.

Processors differ in the last bit of a float64 sine, exponential or sum of products. The
random numbers are exact, and no pixel of `draw()` is so near to the edge of a rounding
that such a bit could move it: its bytes are the same everywhere, and a test holds them.
"""

import math

import numpy as np

from core import rng
from core.data.digits import SIDE, Digits

WAVES = 6  # in the warp
BOX = 19.6  # pixels from edge to edge of the ink, as MNIST's 20

# Digit -> the ways to write it: strokes between slashes, points x,y in percent.
SKELETONS = {
    0: [
        "52,0 15,20 5,55 22,93 58,99 90,68 92,30 68,3 42,3",
        "75,10 45,0 12,30 8,70 40,100 80,82 95,40 75,5 55,10",
    ],
    1: [
        "50,0 50,33 50,67 50,100",
        "32,20 42,10 52,0 / 52,0 51,50 50,100",
        "30,22 52,0 / 52,0 51,50 50,100 / 28,100 50,100 74,98",
    ],
    2: [
        "8,22 30,2 68,2 84,27 55,65 10,97 / 10,97 50,94 95,97",
        "10,20 40,0 80,15 70,50 35,85 12,97 6,85 28,80 60,96 98,88",
    ],
    3: [
        "10,10 45,0 80,17 68,40 38,47 / 38,47 78,55 88,80 52,100 8,90",
        "12,2 50,2 85,2 / 85,2 62,22 42,42 / 42,42 80,50 88,78 50,100 8,88",
    ],
    4: [
        "30,2 22,30 10,58 / 10,58 50,60 95,54 / 76,5 72,50 68,100",
        "66,0 36,32 5,66 / 5,66 50,66 98,62 / 66,0 65,50 62,100",
        "15,0 12,30 30,48 60,44 82,30 / 86,0 82,30 76,65 72,100",
    ],
    5: [
        "88,2 55,2 25,5 / 25,5 21,25 17,43 / 17,43 50,36 85,55 80,85 48,100 8,90",
        "92,2 55,0 28,12 25,36 60,44 86,68 60,98 10,93",
    ],
    6: [
        "70,0 38,22 15,58 18,88 48,100 80,84 76,60 46,53 18,74",
        "42,0 20,35 14,75 40,99 76,92 80,70 50,62 20,82",
    ],
    7: [
        "5,6 50,4 92,2 / 92,2 66,45 45,100",
        "5,6 50,4 92,2 / 92,2 66,45 45,100 / 38,50 62,50 88,47",
        "6,22 12,4 50,6 86,2 78,35 60,65 52,100",
    ],
    8: [
        "82,14 50,0 20,17 34,42 66,58 82,82 50,100 18,82 36,58 68,38 80,16 60,2",
        "50,46 24,30 30,6 62,2 78,24 50,46 / 50,46 16,66 24,95 66,98 84,70 50,46",
    ],
    9: [
        "82,20 52,0 16,20 28,46 62,42 82,20 / 82,20 80,55 70,100",
        "80,16 46,0 14,24 36,48 72,36 82,16 84,55 66,92 22,97",
    ],
}


def draw(seed: int = 0, sizes=(25_000, 5_000)) -> tuple[Digits, Digits]:
    """(training set, test set): ten balanced classes, the same bytes for a seed."""
    count = sum(sizes)
    labels = np.concatenate(
        [rng.permutation(_key(seed, i), n) % 10 for i, n in enumerate(sizes)]
    )
    choice = rng.uniform(_key(seed, 2), [count]).numpy()
    style = _bell(_key(seed, 3), [count, 7])
    waves = _bell(_key(seed, 4), [count, WAVES, 5])
    images = np.empty([count, SIDE, SIDE], np.uint8)
    for digit, variants in SKELETONS.items():
        variant = (choice * len(variants)).astype(int)
        for i, text in enumerate(variants):
            strokes = [
                [[int(n) / 100 for n in point.split(",")] for point in stroke.split()]
                for stroke in text.split("/")
            ]
            rows = np.flatnonzero((labels == digit) & (variant == i))
            for part in np.array_split(rows, len(rows) // 500 + 1):
                path, length = _paths(strokes, style[part], waves[part])
                images[part] = _ink(path, length, pen=_pen(style[part]))
    images, labels = (
        np.split(array, [sizes[0]]) for array in (images, labels.astype(np.uint8))
    )
    return Digits(images[0], labels[0]), Digits(images[1], labels[1])


def _key(seed, index):
    return rng.key(seed, rng.Stream.SYNTHETIC, index)


def _bell(key, shape):
    """Nearly N(0, 1), float64: the sum of eight uniform bytes, which is exact."""
    values = rng.random_bytes(key, 8 * math.prod(shape)).numpy().reshape(*shape, 8)
    variance = 8 * (256**2 - 1) / 12
    return (values.sum(axis=-1, dtype=np.int64) - 8 * 127.5) / math.sqrt(variance)


def _pen(style):
    """The pen's radius (a standard deviation) in pixels, [n, 1, 1]."""
    return (1.15 * np.exp(0.19 * style[:, 0]))[:, None, None].clip(0.75, 1.8)


def _paths(strokes, style, waves):
    """Points along the pen's path in pixels [n, P, 2], and the length at each."""
    controls = _warp(np.array([point for stroke in strokes for point in stroke]), waves)
    path, length, first = [], [], 0
    for stroke in strokes:
        points = _spline(len(stroke)) @ controls[:, first : first + len(stroke)]
        path.append(points)
        first += len(stroke)
    turn, slant, width = 0.10 * style[:, 1], 0.26 * style[:, 2], 0.16 * style[:, 3]
    shape = np.array([[0.72 * np.exp(width), turn], [-turn - slant, 1 + 0 * turn]])
    shape = shape.transpose(2, 0, 1)  # [n, 2, 2]: stretches, turns and slants (x, y)
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
        np.exp(-((pixels - path[:, None, :, i]) ** 2) / (2 * pen**2)) for i in (0, 1)
    )  # [n, 28, P]
    density = (y * length[:, None]) @ x.transpose(0, 2, 1)
    profile = density / (np.sqrt(2 * np.pi) * pen)  # 1 in the middle of a stroke
    return np.rint(255 * np.clip(1.75 * profile - 0.42, 0, 1)).astype(np.uint8)
