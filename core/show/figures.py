"""NumPy arrays -> figures, and PNG files of them where a path is given, not None. No
TensorFlow here, and no window is ever opened."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from core.data.digits import SIDE
from core.run import files

# One for each digit. Ten colors that the color-blind can tell apart: Petroff (arXiv
# 2107.02270), in an order in which digits that a model confuses differ most, in grey
# too: 3, 5 and 8; 4, 7 and 9.
PALETTE = (
    *("#ffa90e", "#a96b59", "#b9ac70", "#92dadd", "#3f90da"),
    *("#832db6", "#717581", "#94a4a2", "#e76300", "#bd1f01"),
)
MANIFOLD_SIDE = 20
ALIKE = style.context("default")  # whatever a matplotlibrc says, such as LaTeX


def _save(figure: Figure, path: Path | None) -> Figure:
    if path:
        with files.whole(path) as file:
            figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
    return figure


def tile(rows, gap: int = 2) -> np.ndarray:
    """Rows of images [28, 28] in [0, 1] as one picture, dark on light: uint8 [height,
    width, 4], for matplotlib makes floats of gray values first, with 30 MB more."""
    step = SIDE + gap
    shape = len(rows) * step - gap, len(rows[0]) * step - gap, 4
    sheet = np.full(shape, 255, np.uint8)
    for top, row in zip(range(0, shape[0], step), rows, strict=True):
        for left, image in zip(range(0, shape[1], step), row, strict=False):
            cell = sheet[top : top + SIDE, left : left + SIDE]
            cell[..., :3] = np.rint(255 * (1 - image))[..., None]
    return sheet


@ALIKE
def image_rows(path: Path, title: str, rows, names=()) -> Figure:
    """Rows of images [28, 28] in [0, 1], with a name before each row if given."""
    sheet = tile(rows)
    height, width, _ = sheet.shape
    axes = Figure(figsize=(width / 42, height / 42 + 0.4)).subplots()
    axes.imshow(sheet, interpolation="nearest")
    axes.set(title=title, xticks=[])
    axes.set_yticks([30 * i + 14 for i in range(len(names))], names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _save(axes.figure, path)


def quantiles(side: int = MANIFOLD_SIDE) -> np.ndarray:
    """Of N(0, 1), [side]: the middles of intervals of equal probability."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])


def grid(x, y) -> np.ndarray:
    """Points [len(y) len(x), 2]: left to right x rises, top to bottom y falls."""
    return np.array([(each_x, each_y) for each_y in reversed(y) for each_x in x])


@ALIKE
def manifold(path: Path, digits: np.ndarray, x, y, where: str, name: str) -> Figure:
    """The decoded `grid` of x and y [side], pixel means [side^2, 28, 28]. The title
    says `where` that is; `name` is of the axes."""
    side = len(x)
    axes = Figure(figsize=(9, 9)).subplots()
    axes.imshow(tile(np.split(digits, side), gap=0))
    title = f"Pixel means over the 2-D latent space, {where}"
    axes.set(title=title, xlabel=f"${name}_1$", ylabel=f"${name}_2$")
    ticks = np.linspace(0, side - 1, 6).round().astype(int)
    at = 28 * ticks + 14
    axes.set_xticks(at, [f"{value:.1f}" for value in x[ticks]])
    axes.set_yticks([28 * side - each for each in at], [f"{v:.1f}" for v in y[ticks]])
    return _save(axes.figure, path)


def principal_components(z_mean: np.ndarray) -> tuple[np.ndarray, float]:
    """([N, 2] along the two directions of most variance, their share of it)."""
    centered = z_mean - z_mean.mean(axis=0)
    _, scales, directions = np.linalg.svd(centered, full_matrices=False)
    share = np.sum(scales[:2] ** 2) / max(np.sum(scales**2), 1e-12)
    points = centered @ directions[:2].T
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))), float(share)


def label_positions(points: np.ndarray, labels, cells: int = 24) -> dict:
    """{label: where to write the name of its class} for points [N, 2].

    It is the middle of a cell of a grid, counts in which are smoothed over neighbors:
    the densest of a class among those in which it leads, with 1.2 times as many as any
    other. It has no name if it leads nowhere with a quarter of its greatest density, or
    only where names would overlap; the densest class chooses first.
    """
    low, width = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-12) / cells
    x, y = np.minimum((points - low) // width, cells - 1).astype(int).T
    classes, which = np.unique(labels, return_inverse=True)
    counts = np.zeros([len(classes), cells + 2, cells + 2])  # with a margin
    np.add.at(counts, (which, x + 1, y + 1), 1)
    for axis in (1, 2):
        counts = counts + (np.roll(counts, 1, axis) + np.roll(counts, -1, axis)) / 2
    counts, free, positions = counts[:, 1:-1, 1:-1], np.ones([cells, cells]), {}
    for i in np.argsort(-counts.max(axis=(1, 2)), kind="stable"):
        others = np.delete(counts, i, axis=0).max(axis=0, initial=0)
        density = counts[i] * free * (counts[i] > 1.2 * others)
        x, y = np.unravel_index(np.argmax(density), density.shape)
        if density[x, y] > counts[i].max() / 4:
            free[max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2] = 0
            positions[classes[i]] = low + (np.array([x, y]) + 0.5) * width
    return positions


@ALIKE
def latent_space(path: Path, z_mean, labels, kind="test", prior=None) -> Figure:
    """The posterior means [N, D] of N `kind` images, colored by their labels [N]. A
    prior of two dimensions is a function, points [n, 2] -> log density [n], and draws
    [n, 2]; it gives the contours."""
    count, dimensions = z_mean.shape
    title = f"Posterior means of {count:,} {kind} images"
    points, xlabel, ylabel = z_mean, "$z_1$", "$z_2$"
    if dimensions == 1:
        points, ylabel = np.column_stack([z_mean, labels]), "label"
    elif dimensions > 2:
        points, share = principal_components(z_mean)
        xlabel, ylabel = "first principal component", "second principal component"
        title += f"\ntwo principal components of {dimensions} dimensions, "
        title += f"{share:.0%} of the variance"
    axes = Figure(figsize=(8, 7.2)).subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.25)
    size = float(np.clip(60_000 / count, 3, 30))
    if prior:
        _contours(axes, points, *prior)
    few = labels.max() < len(PALETTE)
    colors = np.array(PALETTE)[labels] if few else labels
    dots = axes.scatter(*points.T, s=size, c=colors, lw=0)  # in one, so that none hides
    if few:
        _name_classes(axes, points, labels, size)
    else:
        axes.figure.colorbar(dots, label="label")
    return _save(axes.figure, path)


def _contours(axes, points, log_prior, draws, side: int = 100) -> None:
    """Around the densest parts that hold 50, 90 and 99 % of the draws."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.maximum(high - low, 1e-6) / 20
    x, y = np.linspace(low - room, high + room, side).T
    density = np.reshape(log_prior(grid(x, y)), [side, side])[::-1]
    levels = np.unique(np.quantile(log_prior(draws), [0.01, 0.1, 0.5]))
    style = dict(colors="0.2", linewidths=0.8, linestyles="solid", zorder=1.5)
    axes.contour(x, y, density, levels, **style)
    axes.text(0, -0.1, "lines: 50, 90 and 99 % of the prior", transform=axes.transAxes)


def _name_classes(axes, points, labels, size: float) -> None:
    """Each class of the points [N, 2] where it leads, and in a legend."""
    positions = label_positions(points, labels)
    for label in np.unique(labels):
        color, name = PALETTE[label], str(label)
        axes.scatter([], [], s=size, color=color, label=name)
        box = dict(boxstyle="circle,pad=0.15", fc="white", ec=color, lw=2)
        font = dict(fontsize=12, weight="bold", ha="center", va="center")
        if label in positions:
            axes.annotate(name, positions[label], bbox=box, **font)
    beside = dict(loc="upper left", bbox_to_anchor=(1, 1))
    axes.legend(title="label", markerscale=10 / size**0.5, **beside)


@ALIKE
def learning_curves(path: Path, records: list[dict], unit: str) -> Figure:
    """Distortion + rate, and each, of training and validation against the epoch. The
    first epoch, which is far from the others, sets no limits."""
    figure = Figure(figsize=(13, 3.6))
    epochs = [record["epoch"] for record in records]
    style = "o-" if len(records) < 60 else "-"
    names = "distortion + rate", "distortion", "rate"
    for axes, name in zip(figure.subplots(1, 3), names, strict=True):
        curves = []
        for color, kind in ((PALETTE[4], "train"), (PALETTE[9], "validation")):
            if f"{kind}_rate" in records[0]:
                parts = [f"{kind}_{part}" for part in name.split(" + ")]
                curves.append(
                    [sum(record[part] for part in parts) for record in records]
                )
                axes.plot(epochs, curves[-1], style, color=color, ms=3, label=kind)
        shown = [value for curve in curves for value in curve[1:] or curve]
        room = 0.08 * (max(shown) - min(shown)) or 1
        axes.set(title=name, xlabel="epoch")
        axes.set_ylim(min(shown) - room, max(shown) + room)
        _end(axes, epochs[-1], [curve[-1] for curve in curves])
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(records) == 1:
            axes.set_xticks(epochs)
        axes.grid(alpha=0.25)
        axes.legend()
    figure.axes[0].set_ylabel(unit)
    figure.subplots_adjust(wspace=0.45)  # for the last values
    return _save(figure, path)


@ALIKE
def comparison(path: Path, loss: str, models: dict) -> Figure:
    """Of models {name: (means, one a seed; paired difference from the first, and its
    standard error)}: the means, and the differences with twice their error."""
    figure = Figure(figsize=(12, 1.5 + 0.4 * len(models)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for row, (means, paired, error) in enumerate(models.values()):
        left.plot(means, [row] * len(means), "o", color=PALETTE[0])
        right.errorbar(paired, row, xerr=2 * (error or 0), fmt="o", color=PALETTE[2])
    left.set(title=f"{loss}, a point for each seed", xlabel="nats an image")
    right.set(title="paired difference from the first, +- 2 errors", xlabel="nats")
    left.set_yticks(range(len(models)), models, parse_math=False)
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(alpha=0.25)
    return _save(figure, path)


def _end(axes, epoch, values) -> None:
    """Write the last value of each curve at its end, the higher above the lower."""
    for i, (line, value) in enumerate(zip(axes.get_lines(), values, strict=True)):
        side = 1 if i == np.argmax(values) else -1
        style = dict(color=line.get_color(), va="bottom" if side > 0 else "top")
        at = dict(xytext=(9, 2 * side), textcoords="offset points")
        axes.annotate(f"{value:.2f}", (epoch, value), **at, **style)


def reconstructions(path: Path, kind: str, images, labels, z_mean, decode) -> Figure:
    """Some of N images of a `kind`, such as "test", over what a model makes of them.

    images(rows) gives some, [n, 28, 28] in [0, 1]; `labels` [N] and the posterior means
    `z_mean` [N, D] are of all; decode(z, labels) gives pixel means [n, 28, 28].
    """
    rows = []
    for few in np.array_split(np.arange(min(36, len(labels))), 3):
        rows += [images(few), decode(z_mean[few], labels[few])]
    title = f"{kind} images, and reconstructions from their posterior means"
    return image_rows(path, title.capitalize(), rows, ["image", "reconstruction"] * 3)


def interpolations(path: Path, kind: str, images, labels, z_mean, decode) -> Figure:
    """From the first image of a class to that of the next, and so on round; the
    arguments are those of `reconstructions`."""
    _, first_of = np.unique(labels, return_index=True)
    rows, names = [], []
    for a, b in zip(first_of[:10], np.roll(first_of[:10], -1), strict=True):
        line = np.linspace(z_mean[a], z_mean[b], 10)
        between = decode(line, np.full(10, labels[a]))
        rows.append([*images([a]), *between, *images([b])])
        names.append(f"{labels[a]} to {labels[b]}")
    title = f"From one {kind} image to another, along the line between posterior means"
    return image_rows(path, title, rows, names)
