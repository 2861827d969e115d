"""Handwriting-like digits drawn offline, as the same `Digits` that MNIST gives.

A digit is a few strokes, splines through control points in a unit box (x to the right,
y down). For each image a random smooth warp bends the box, then slant, turn, width,
size, position and pen vary; the pen leaves ink along the path, anti-aliased.

The random numbers are exact, and no pixel of `draw()` is so near to the edge of a
rounding that the last bit of a float64, in which processors differ, could move it: its
bytes are the same everywhere, and a test holds them.
"""

import math

import numpy as np

from core import rng
from core.data.digits import SIDE, Digits

WAVES = 6  # in the warp
BOX = 19.6  # pixels from edge to edge of the ink, as MNIST's 20
SPREAD = (0.19, 0.10, 0.26, 0.16, 0.7, 0.3, 0.3)  # pen, turn, slant, width, size, x, y
# Twice the weights of four points, by powers of the way from the second to the third.
CATMULL_ROM = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])

# A digit, and one of the ways to write it: strokes between slashes, x and y in percent.
SKELETONS = """\
0: 52 0  15 20  5 55  22 93  58 99  90 68  92 30  68 3  42 3
0: 75 10  45 0  12 30  8 70  40 100  80 82  95 40  75 5  55 10
1: 50 0  50 33  50 67  50 100
1: 32 20  42 10  52 0 / 52 0  51 50  50 100
1: 30 22  52 0 / 52 0  51 50  50 100 / 28 100  50 100  74 98
2: 8 22  30 2  68 2  84 27  55 65  10 97 / 10 97  50 94  95 97
2: 10 20  40 0  80 15  70 50  35 85  12 97  6 85  28 80  60 96  98 88
3: 10 10  45 0  80 17  68 40  38 47 / 38 47  78 55  88 80  52 100  8 90
3: 12 2  50 2  85 2 / 85 2  62 22  42 42 / 42 42  80 50  88 78  50 100  8 88
4: 30 2  22 30  10 58 / 10 58  50 60  95 54 / 76 5  72 50  68 100
4: 66 0  36 32  5 66 / 5 66  50 66  98 62 / 66 0  65 50  62 100
4: 15 0  12 30  30 48  60 44  82 30 / 86 0  82 30  76 65  72 100
5: 88 2  55 2  25 5 / 25 5  21 25  17 43 / 17 43  50 36  85 55  80 85  48 100  8 90
5: 92 2  55 0  28 12  25 36  60 44  86 68  60 98  10 93
6: 70 0  38 22  15 58  18 88  48 100  80 84  76 60  46 53  18 74
6: 42 0  20 35  14 75  40 99  76 92  80 70  50 62  20 82
7: 5 6  50 4  92 2 / 92 2  66 45  45 100
7: 5 6  50 4  92 2 / 92 2  66 45  45 100 / 38 50  62 50  88 47
7: 6 22  12 4  50 6  86 2  78 35  60 65  52 100
8: 82 14  50 0  20 17  34 42  66 58  82 82  50 100  18 82  36 58  68 38  80 16  60 2
8: 50 46  24 30  30 6  62 2  78 24  50 46 / 50 46  16 66  24 95  66 98  84 70  50 46
9: 82 20  52 0  16 20  28 46  62 42  82 20 / 82 20  80 55  70 100
9: 80 16  46 0  14 24  36 48  72 36  82 16  84 55  66 92  22 97
"""


def draw(seed: int = 0, sizes=(25_000, 5_000)) -> tuple[Digits, Digits]:
    """(training set, test set): ten balanced classes, the same bytes for a seed."""
    count, edge = sum(sizes), sizes[0]
    keys = [rng.key(seed, rng.Stream.SYNTHETIC, i) for i in range(5)]
    labels = [rng.permutation(key, n) % 10 for key, n in zip(keys, sizes, strict=False)]
    labels = np.concatenate(labels).astype(np.uint8)
    choice = rng.uniform(keys[2], [count]).numpy()
    style = _bell(keys[3], [count, 7]) * SPREAD
    waves = _bell(keys[4], [count, WAVES, 5])
    images = np.empty([count, SIDE, SIDE], np.uint8)
    for digit in range(10):
        variants = _variants(digit)
        variant = (choice * len(variants)).astype(int)
        for i, strokes in enumerate(variants):
            rows = np.flatnonzero((labels == digit) & (variant == i))
            for part in np.array_split(rows, len(rows) // 500 + 1):  # for the memory
                images[part] = _write(strokes, style[part], waves[part])
    return Digits(images[:edge], labels[:edge]), Digits(images[edge:], labels[edge:])


def _variants(digit: int):
    """The ways to write a digit, each a list of strokes: control points [C, 2]."""
    lines = [line for line in SKELETONS.splitlines() if line[0] == str(digit)]
    return [
        [np.array(s.split(), float).reshape(-1, 2) / 100 for s in line[2:].split("/")]
        for line in lines
    ]


def _bell(key, shape):
    """Nearly N(0, 1), float64: the sum of eight uniform bytes, which is exact."""
    values = rng.random_bytes(key, 8 * math.prod(shape)).numpy().reshape(*shape, 8)
    variance = 8 * (256**2 - 1) / 12
    return (values.sum(axis=-1, dtype=np.int64) - 8 * 127.5) / math.sqrt(variance)


def _write(strokes, style, waves):
    """uint8 images [n, 28, 28] of a skeleton in the styles [n, 7], warped by waves."""
    pen, turn, slant, width, size = style.T[:5]
    pen = (1.15 * np.exp(pen))[:, None, None].clip(0.75, 1.8)  # its radius, in pixels
    shape = np.array([[0.72 * np.exp(width), turn], [-turn - slant, 1 + 0 * turn]])
    shape = shape.transpose(2, 0, 1)  # [n, 2, 2]: stretches, turns and slants (x, y)
    paths = [_spline(_warp(stroke, waves)) @ shape for stroke in strokes]
    length = np.concatenate([_arc_length(path) for path in paths], axis=1)
    path = np.concatenate(paths, axis=1)  # [n, P, 2]
    extent = np.ptp(path, axis=1).max(axis=1)[:, None, None]
    scale = (BOX - 2.2 * pen + size[:, None, None]) / extent  # to pixels
    mass = (length / length.sum(axis=1, keepdims=True))[..., None]
    center = SIDE / 2 + style[:, None, 5:]
    path = scale * (path - (path * mass).sum(axis=1, keepdims=True)) + center
    return _ink(path, scale[..., 0] * length, pen)


def _warp(points, waves):
    """Control points [C, 2] moved by a sum of random plane waves, [n, C, 2]: smooth
    ones, so strokes that meet in a point still meet after it."""
    frequency, direction, phase = waves[..., :2], waves[..., 2:4], waves[..., 4]
    angle = 3.6 * np.einsum("cd,nwd->nwc", points, frequency) + 3 * phase[..., None]
    return points + 0.036 * np.einsum("nwc,nwd->ncd", np.sin(angle), direction)


def _spline(points):
    """[n, C, 2] -> [n, 9 (C - 1) + 1, 2] along the Catmull-Rom spline through them."""
    weights = np.vander(np.arange(9) / 9, 4, increasing=True) @ CATMULL_ROM / 2
    ends_twice = np.pad(points, ((0, 0), (1, 1), (0, 0)), mode="edge")
    pieces = [weights @ ends_twice[:, i : i + 4] for i in range(points.shape[1] - 1)]
    return np.concatenate([*pieces, points[:, -1:]], axis=1)


def _arc_length(points):
    """The length of path that each of the points [n, P, 2] stands for, [n, P]."""
    steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    return (np.pad(steps, ((0, 0), (1, 0))) + np.pad(steps, ((0, 0), (0, 1)))) / 2


def _ink(path, length, pen):
    """uint8 images [n, 28, 28] of a path [n, P, 2] under a pen of Gaussian profile. As
    exp(-(dx^2 + dy^2)) is a product, the sum over the path is a matrix product."""
    pixels = np.arange(SIDE)[:, None]
    x, y = (
        np.exp(-((pixels - path[:, None, :, i]) ** 2) / (2 * pen**2)) for i in (0, 1)
    )  # [n, 28, P]
    density = (y * length[:, None]) @ x.transpose(0, 2, 1)
    profile = density / (np.sqrt(2 * np.pi) * pen)  # 1 in the middle of a stroke
    return np.rint(255 * np.clip(1.75 * profile - 0.42, 0, 1)).astype(np.uint8)
