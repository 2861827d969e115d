"""NumPy arrays -> PNG files. No TensorFlow here, and no window is ever opened."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure

from core.data.digits import SIDE
from core.run import files

# Ten colors that the color-blind can tell apart: Petroff (arXiv 2107.02270).
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
MANIFOLD_SIDE = 20


def _save(figure: Figure, path: Path) -> None:
    with files.whole(path) as file:
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")


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


def image_rows(path: Path, title: str, rows, names=()) -> None:
    """Rows of images [28, 28] in [0, 1], with a name before each row if given."""
    sheet = tile(rows)
    height, width, _ = sheet.shape
    axes = Figure(figsize=(width / 42, height / 42 + 0.4)).subplots()
    axes.imshow(sheet, interpolation="nearest")
    axes.set(title=title, xticks=[])
    axes.set_yticks([30 * i + 14 for i in range(len(names))], names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _save(axes.figure, path)


def quantiles(side: int = MANIFOLD_SIDE) -> np.ndarray:
    """Of N(0, 1), [side]: the middles of intervals of equal probability."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])


def grid(x, y) -> np.ndarray:
    """Points [len(y) len(x), 2]: left to right x rises, top to bottom y falls."""
    return np.array([(each_x, each_y) for each_y in reversed(y) for each_x in x])


def manifold(path: Path, digits: np.ndarray, x, y, where: str, name: str) -> None:
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
    _save(axes.figure, path)


def principal_components(z_mean: np.ndarray) -> tuple[np.ndarray, float]:
    """([N, 2] along the two directions of most variance, their share of it)."""
    centered = z_mean - z_mean.mean(axis=0)
    _, scales, directions = np.linalg.svd(centered, full_matrices=False)
    share = np.sum(scales[:2] ** 2) / max(np.sum(scales**2), 1e-12)
    points = centered @ directions[:2].T
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))), float(share)


def label_position(points: np.ndarray, mine: np.ndarray, cells: int = 24) -> np.ndarray:
    """Where to write the name of a class, whose `points` [N, 2] are `mine` [N]: their
    mean in that cell of a grid in which they most outnumber the others."""
    low, high = points.min(axis=0), points.max(axis=0)
    width = np.maximum(high - low, 1e-12) / cells
    x, y = np.minimum((points - low) // width, cells - 1).astype(int).T
    cell = x * cells + y
    lead = np.bincount(cell, np.where(mine, 1, -1), cells**2)
    lead[np.bincount(cell[mine], minlength=cells**2) == 0] = -np.inf
    return points[mine & (cell == np.argmax(lead))].mean(axis=0)


def latent_space(path: Path, z_mean, labels, kind="test", prior=None) -> None:
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
    _save(axes.figure, path)


def _contours(axes, points, log_prior, draws, side: int = 100) -> None:
    """Around the densest parts that hold 50, 90 and 99 % of the draws."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.maximum(high - low, 1e-6) / 20
    x, y = np.linspace(low - room, high + room, side).T
    density = np.reshape(log_prior(grid(x, y)), [side, side])[::-1]
    levels = np.unique(np.quantile(log_prior(draws), [0.01, 0.1, 0.5]))
    style = dict(colors="0.4", linewidths=0.8, linestyles="solid", zorder=0.5)
    axes.contour(x, y, density, levels, **style)
    axes.text(0, -0.1, "lines: 50, 90 and 99 % of the prior", transform=axes.transAxes)


def _name_classes(axes, points, labels, size: float) -> None:
    """Each class of the points [N, 2] where it leads, and in a legend."""
    for label in np.unique(labels):
        color, name = PALETTE[label], str(label)
        axes.scatter([], [], s=size, color=color, label=name)
        box = dict(boxstyle="circle,pad=0.15", fc="white", ec=color, lw=2)
        font = dict(fontsize=12, weight="bold", ha="center", va="center")
        position = label_position(points, labels == label)
        axes.annotate(name, position, bbox=box, **font)
    beside = dict(loc="upper left", bbox_to_anchor=(1, 1))
    axes.legend(title="label", markerscale=10 / size**0.5, **beside)


def learning_curves(path: Path, records: list[dict], unit: str) -> None:
    """Distortion + rate, and each, of training and validation against the epoch."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    epochs = [record["epoch"] for record in records]
    style = "o-" if len(records) < 60 else "-"
    names = "distortion + rate", "distortion", "rate"
    for axes, name in zip(figure.subplots(1, 3), names, strict=True):
        for color, kind in ((PALETTE[0], "train"), (PALETTE[2], "validation")):
            if f"{kind}_rate" in records[0]:
                parts = [f"{kind}_{part}" for part in name.split(" + ")]
                values = [sum(record[part] for part in parts) for record in records]
                axes.plot(epochs, values, style, color=color, ms=3, label=kind)
        axes.set(title=name, xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(records) == 1:
            axes.set_xticks(epochs)
        axes.grid(alpha=0.25)
        axes.legend()
    _save(figure, path)


def comparison(path: Path, loss: str, models: dict) -> None:
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
    _save(figure, path)


def reconstructions(path: Path, kind: str, images, labels, z_mean, decode) -> None:
    """Some of N images of a `kind`, such as "test", over what a model makes of them.

    images(rows) gives some, [n, 28, 28] in [0, 1]; `labels` [N] and the posterior means
    `z_mean` [N, D] are of all; decode(z, labels) gives pixel means [n, 28, 28].
    """
    rows = []
    for few in np.array_split(np.arange(min(36, len(labels))), 3):
        rows += [images(few), decode(z_mean[few], labels[few])]
    title = f"{kind} images, and reconstructions from their posterior means"
    image_rows(path, title.capitalize(), rows, ["image", "reconstruction"] * 3)


def interpolations(path: Path, kind: str, images, labels, z_mean, decode) -> None:
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
    image_rows(path, title, rows, names)
