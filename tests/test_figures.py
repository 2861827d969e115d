import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from core import figures

RANDOM = np.random.default_rng(0)


def test_tile_puts_rows_below_rows_dark_on_light():
    rows = np.zeros([2, 3, 28, 28])
    rows[1, 2] = 1
    sheet = figures.tile(rows)
    assert sheet.shape == (58, 88, 4)
    assert sheet[30:, 60:, :3].max() == 0  # full ink is black
    assert sheet[:28].min() == sheet[:, :58].min() == sheet[..., 3].min() == 255


def test_tile_leaves_a_short_last_row_blank():
    sheet = figures.tile([np.ones([2, 28, 28]), np.ones([1, 28, 28])])
    assert sheet[30:, 30:].min() == 255 and sheet[30:, :28, :3].max() == 0


def test_the_manifold_grid_is_cells_of_equal_probability():
    grid = figures.manifold_grid(4).reshape(4, 4, 2)
    assert np.all(np.diff(grid[..., 0], axis=1) > 0)  # z_1 rises to the right
    assert np.all(np.diff(grid[..., 1], axis=0) < 0)  # z_2 rises upwards
    np.testing.assert_allclose(grid, -grid[::-1, ::-1], atol=1e-12)
    assert grid.max() == pytest.approx(1.1503, abs=1e-4)  # the 7/8 quantile
    assert figures.MANIFOLD_SIDE >= 20


def test_principal_components_find_the_directions_of_most_variance():
    scores = RANDOM.standard_normal([500, 3]) * [5, 2, 0.1]
    rotation, _ = np.linalg.qr(RANDOM.standard_normal([3, 3]))
    points, share = figures.principal_components(scores @ rotation + 7)
    assert share > 0.999
    for i in range(2):
        assert abs(np.corrcoef(points[:, i], scores[:, i])[0, 1]) > 0.99


def test_the_palette_has_ten_colors():
    assert len(set(figures.PALETTE)) == 10


HISTORY = [
    {"epoch": e, **{f"{kind}_{name}": 9.0 / e for kind in ("train", "validation")
                    for name in ("loss", "rate", "distortion")}}
    for e in (1, 2)
]  # fmt: skip
DIGITS = RANDOM.uniform(size=[4, 3, 28, 28])
LABELS = np.arange(50) % 10
DRAWINGS = {
    "rows": lambda path: figures.image_rows(path, "title", DIGITS, list("abcd")),
    "one": lambda path: figures.image_rows(path, "title", DIGITS[:1, :1]),
    "manifold": lambda path: figures.manifold(path, RANDOM.uniform(size=[16, 28, 28])),
    "curves": lambda path: figures.learning_curves(path, HISTORY, "nats"),
    "no validation": lambda path: figures.learning_curves(
        path,
        [{k: v for k, v in r.items() if k[0] != "v"} for r in HISTORY],
        "nats",
    ),
    **{
        f"latent {d}": lambda path, d=d: figures.latent_space(
            path, RANDOM.standard_normal([50, d]), LABELS
        )
        for d in (1, 2, 5)
    },
    "many classes": lambda path: figures.latent_space(
        path, RANDOM.standard_normal([50, 2]), np.arange(50)
    ),
    "no variance": lambda path: figures.latent_space(path, np.zeros([50, 4]), LABELS),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_are_whole_pictures(tmp_path, name):
    path = tmp_path / "figures" / "figure.png"
    DRAWINGS[name](path)
    picture = imread(path)
    assert min(picture.shape[:2]) > 50
    assert picture.std() > 0.05
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]


def test_a_class_has_its_color_whatever_others_are_there(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: drawn.append(figure))
    for labels in (np.array([9, 2, 9]), np.array([9, 9, 9])):
        figures.latent_space(tmp_path / "x.png", RANDOM.standard_normal([3, 2]), labels)
    colors = [figure.axes[0].collections[0].get_facecolors()[0] for figure in drawn]
    np.testing.assert_array_equal(*colors)
    assert to_hex(colors[0]) == figures.PALETTE[9]


def test_a_class_is_named_where_it_outnumbers_the_others():
    """Its points are half among others, half on their own."""
    mine = np.arange(90) < 60
    points = RANDOM.uniform(size=[90, 2])
    points[:30] += [5, 9]
    position = figures.label_position(points, mine, cells=4)
    assert np.all(np.abs(position - [5.5, 9.5]) < 0.6)
    same = np.zeros([3, 2])
    assert figures.label_position(same, np.arange(3) == 1).shape == (2,)


def test_the_latent_space_says_what_it_projects(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        figures, "_save", lambda figure, path: titles.append(figure.axes[0].get_title())
    )
    for dimensions in (2, 5):
        z_mean = RANDOM.standard_normal([50, dimensions])
        figures.latent_space(tmp_path / "x.png", z_mean, LABELS)
    assert "principal" not in titles[0]
    assert "principal components of 5 dimensions" in titles[1]
