"""NumPy arrays -> PNG files. No TensorFlow here, and no window is ever opened."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure

from core.run import files

# Ten colors that the color-blind can tell apart: Petroff (arXiv 2107.02270).
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
MANIFOLD_SIDE = 20


def _save(figure: Figure, path: Path) -> None:
    """Write the PNG, whole or not at all."""
    with files.whole(path) as file:
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")


def tile(rows, gap: int = 2) -> np.ndarray:
    """Rows of images [28, 28] in [0, 1] as one picture, dark on light.

    It is uint8 [height, width, 4], red to opacity: of gray values matplotlib would make
    float colors first, which takes 30 MB more.
    """
    height, width = np.array(np.shape(rows[0][0])) + gap
    shape = len(rows) * height - gap, len(rows[0]) * width - gap, 4
    sheet = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * height, j * width
            ink = np.rint(255 * (1 - image))[..., None]
            sheet[top : top + height - gap, left : left + width - gap, :3] = ink
    return sheet


def image_rows(path: Path, title: str, rows, names=()) -> None:
    """Rows of images [28, 28] in [0, 1], with a name before each row if given."""
    sheet = tile(rows)
    figure = Figure(figsize=(sheet.shape[1] / 42, sheet.shape[0] / 42 + 0.4))
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest")
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([30 * i + 14 for i in range(len(names))], names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _save(figure, path)


def manifold_grid(side: int = MANIFOLD_SIDE) -> np.ndarray:
    """Points z [side^2, 2] at the Gaussian quantiles, in the order of a picture.

    Left to right z_1 rises, top to bottom z_2 falls: cells of equal probability.
    """
    quantiles = _quantiles(side)
    return np.array([(x, y) for y in reversed(quantiles) for x in quantiles])


def _quantiles(side: int) -> list[float]:
    """The middles of `side` intervals of equal probability under N(0, 1)."""
    return [NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)]


def manifold(path: Path, digits: np.ndarray) -> None:
    """The decoded `manifold_grid`, pixel means [side^2, 28, 28]."""
    side = round(len(digits) ** 0.5)
    sheet = tile(np.split(digits, side), gap=0)
    figure = Figure(figsize=(9, 9))
    axes = figure.subplots()
    axes.imshow(sheet)
    axes.set_title("Pixel means over the 2-D latent space, at the prior's quantiles")
    ticks = np.unique(np.linspace(0, side - 1, 6).round().astype(int))
    at = [28 * i + 14 for i in ticks]
    names = [f"{_quantiles(side)[i]:.1f}" for i in ticks]
    axes.set_xticks(at, names)
    axes.set_yticks([28 * side - y for y in at], names)
    axes.set_xlabel("$z_1$")
    axes.set_ylabel("$z_2$")
    _save(figure, path)


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


def latent_space(
    path: Path, z_mean: np.ndarray, labels: np.ndarray, kind="test"
) -> None:
    """The posterior means [N, D] of N `kind` images, colored by their labels [N]."""
    names, points = ("$z_1$", "$z_2$"), z_mean
    title = f"Posterior means of {len(z_mean):,} {kind} images"
    if z_mean.shape[1] == 1:
        points = np.column_stack([z_mean[:, 0], labels])
        names = ("$z_1$", "label")
    elif z_mean.shape[1] > 2:
        points, share = principal_components(z_mean)
        names = ("first principal component", "second principal component")
        title += (
            f"\ntwo principal components of {z_mean.shape[1]} dimensions, "
            f"{share:.0%} of the variance"
        )
    figure = Figure(figsize=(8, 7.2))
    axes = figure.subplots()
    size = float(np.clip(60_000 / len(points), 3, 30))
    if labels.max() < len(PALETTE):
        _scatter_classes(axes, points, labels, size)
    else:
        dots = axes.scatter(*points.T, s=size, c=labels, cmap="viridis", lw=0)
        figure.colorbar(dots, label="label")
    axes.set_title(title)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.grid(alpha=0.25)
    _save(figure, path)


def _scatter_classes(axes, points, labels, size: float) -> None:
    """The points [N, 2], each class in its color, with its name where it leads."""
    colors = np.array(PALETTE)[labels]
    axes.scatter(*points.T, s=size, c=colors, lw=0)  # in one, so that none hides
    for label in np.unique(labels):
        color = PALETTE[label]
        axes.scatter([], [], s=size, color=color, label=str(label))
        axes.annotate(
            str(label),
            label_position(points, labels == label),
            fontsize=12,
            weight="bold",
            ha="center",
            va="center",
            bbox=dict(boxstyle="circle,pad=0.15", fc="white", ec=color, lw=2),
        )
    axes.legend(
        title="label",
        markerscale=10 / size**0.5,
        loc="upper left",
        bbox_to_anchor=(1, 1),
    )


def learning_curves(path: Path, records: list[dict], unit: str) -> None:
    """Distortion + rate, and each, of training and validation against the epoch."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    epochs = [record["epoch"] for record in records]
    for i, name in enumerate(("distortion + rate", "distortion", "rate")):
        axes = figure.add_subplot(1, 3, i + 1)
        for color, kind in ((PALETTE[0], "train"), (PALETTE[2], "validation")):
            if f"{kind}_rate" in records[0]:
                parts = name.split(" + ")
                values = [sum(r[f"{kind}_{part}"] for part in parts) for r in records]
                style = "o-" if len(records) < 60 else "-"
                axes.plot(epochs, values, style, color=color, ms=3, label=kind)
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(records) == 1:
            axes.set_xticks(epochs)
        axes.set_ylabel(unit)
        axes.grid(alpha=0.25)
        axes.legend()
    _save(figure, path)


def reconstructions(folder: Path, kind: str, images, labels, z_mean, decode) -> None:
    """Some of N images of a `kind`, such as "test", over what a model makes of them.

    images(rows) gives some of them, [n, 28, 28] in [0, 1]; `labels` [N] and the
    posterior means `z_mean` [N, D] are of all; decode(z, labels) gives pixel means
    [n, 28, 28].
    """
    rows = np.array_split(np.arange(min(36, len(labels))), 3)
    image_rows(
        folder / "reconstructions.png",
        f"{kind.capitalize()} images, and reconstructions from their posterior means",
        [f for row in rows for f in (images(row), decode(z_mean[row], labels[row]))],
        ["image", "reconstruction"] * 3,
    )


def interpolations(folder: Path, kind: str, images, labels, z_mean, decode) -> None:
    """From the first image of a class to that of the next, and so on round; the
    arguments are those of `reconstructions`."""
    first_of = [int(np.argmax(labels == label)) for label in np.unique(labels)[:10]]
    pairs = list(zip(first_of, np.roll(first_of, -1), strict=True))
    image_rows(
        folder / "interpolations.png",
        f"From one {kind} image to another, along the line between posterior means",
        [
            [
                *images([a]),
                *decode(np.linspace(z_mean[a], z_mean[b], 10), np.full(10, labels[a])),
                *images([b]),
            ]
            for a, b in pairs
        ],
        [f"{labels[a]} to {labels[b]}" for a, b in pairs],
    )
