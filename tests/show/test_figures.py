from functools import partial

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.image import imread

from core.show import figures

RANDOM = np.random.default_rng(0)


def test_a_users_style_changes_no_picture(tmp_path):
    """Nor ends one, as where it asks for LaTeX, and there is none."""
    rows = [np.eye(28)[None]]
    figures.image_rows(tmp_path / "plain.png", "a title", rows)
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40}):
        figures.image_rows(tmp_path / "styled.png", "a title", rows)
        assert matplotlib.rcParams["font.size"] == 40
    plain, styled = (tmp_path / f"{n}.png" for n in ("plain", "styled"))
    assert plain.read_bytes() == styled.read_bytes()


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
    quantiles = figures.quantiles(4)
    grid = figures.grid(quantiles, quantiles).reshape(4, 4, 2)
    assert np.all(np.diff(grid[..., 0], axis=1) > 0)  # z_1 rises to the right
    assert np.all(np.diff(grid[..., 1], axis=0) < 0)  # z_2 rises upwards
    np.testing.assert_allclose(grid, -grid[::-1, ::-1], atol=1e-12)
    assert grid.max() == pytest.approx(1.1503, abs=1e-4)  # the 7/8 quantile
    assert figures.MANIFOLD_SIDE >= 20 and len(figures.quantiles()) >= 20
    corners = figures.grid([1, 3], [5, 9])
    np.testing.assert_array_equal(corners, [[1, 9], [3, 9], [1, 5], [3, 5]])


def test_the_manifolds_axes_have_the_grids_coordinates(tmp_path, monkeypatch):
    """A tick stands at the middle of the digits that were decoded from its number."""
    drawn, side, x, y = [], 6, np.linspace(-1, 4, 6), np.linspace(7, 9, 6)
    monkeypatch.setattr(figures, "_save", lambda figure, path: drawn.append(figure))
    digits = np.zeros([side**2, 28, 28])
    figures.manifold(tmp_path / "x.png", digits, x, y, "somewhere", "e")
    (axes,) = drawn[0].axes
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is at the top
    assert axes.get_title() == "Pixel means over the 2-D latent space, somewhere"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$e_1$", "$e_2$")
    grid = figures.grid(x, y).reshape(side, side, 2)
    for ticks, labels, coordinate in (
        (axes.get_xticks(), axes.get_xticklabels(), lambda i: grid[0, i, 0]),
        (axes.get_yticks(), axes.get_yticklabels(), lambda i: grid[i, 0, 1]),
    ):
        assert len(ticks) == side
        for at, label in zip(ticks, labels, strict=True):
            cell, inside = divmod(int(at), 28)
            expected = pytest.approx(coordinate(cell), abs=0.051)
            assert inside == 14 and float(label.get_text()) == expected


def test_principal_components_find_the_directions_of_most_variance():
    scores = RANDOM.standard_normal([500, 3]) * [5, 2, 0.1]
    rotation, _ = np.linalg.qr(RANDOM.standard_normal([3, 3]))
    points, share = figures.principal_components(scores @ rotation + 7)
    assert share > 0.999
    for i in range(2):
        assert abs(np.corrcoef(points[:, i], scores[:, i])[0, 1]) > 0.99


def test_digits_that_look_alike_have_colors_that_do_not():
    """In grey too: the CIE lightness of the ten colors is from 38 to 83."""
    colors = np.array([to_rgb(color) for color in figures.PALETTE])
    assert len({*figures.PALETTE}) == 10
    linear = np.where(colors < 0.04, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    for a, b in ((3, 8), (5, 7), (4, 9), (7, 9), (3, 5), (5, 8)):
        assert abs(lightness[a] - lightness[b]) > 15, (a, b)
        assert np.linalg.norm(colors[a] - colors[b]) > 0.45, (a, b)


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
    "manifold": lambda path: figures.manifold(
        path, RANDOM.uniform(size=[16, 28, 28]), *2 * [figures.quantiles(4)], "", "z"
    ),
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


def test_a_figure_can_be_had_without_a_file(tmp_path, monkeypatch):
    """As a notebook shows it."""
    monkeypatch.chdir(tmp_path)
    for name, draw in DRAWINGS.items():
        figure = draw(None)
        assert isinstance(figure, Figure) and figure.axes, name
    assert not list(tmp_path.iterdir())


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


def test_a_class_is_named_where_it_is_densest_of_where_it_leads():
    """It is denser still among the points of another, and it has an outlier."""
    random = np.random.default_rng(1)

    def spot(at, count):
        return at + 0.1 * random.standard_normal([count, 2])

    points = [spot((0, 0), 300), spot((0, 0), 280), spot((4, 4), 100), [(9, -9)]]
    labels = np.repeat([3, 8, 8, 8], [300, 280, 100, 1])
    found = figures.label_positions(np.concatenate(points), labels)
    assert list(found) == [8]  # 3 has no more than 1.07 times as many anywhere
    assert np.linalg.norm(found[8] - (4, 4)) < 0.6


def test_a_class_that_leads_at_an_outlier_alone_has_no_name():
    points = np.concatenate([np.zeros([90, 2]), [[5.0, 5.0]]])
    labels = np.repeat([4, 9, 4], [40, 50, 1])
    assert list(figures.label_positions(points, labels)) == [9]


def test_names_of_classes_do_not_overlap():
    """They are two cells apart at least, whatever mixes."""
    for classes in (10, 3):
        points = RANDOM.standard_normal([3000, 2])
        labels = (points[:, 0] * 9).astype(int) % classes
        found = np.array([*figures.label_positions(points, labels).values()])
        cell = np.ptp(points, axis=0) / 24
        apart = (np.abs(found[:, None] - found) / cell).max(axis=-1)
        assert len(found) > 1 and np.all(apart[~np.eye(len(found), dtype=bool)] > 1.9)


def test_points_that_are_all_one_have_a_name_there():
    found = figures.label_positions(np.full([3, 2], 7.0), np.arange(3) // 3)
    np.testing.assert_allclose(found[0], 7)


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


def normal(points, center, scale):
    """Log density of a Gaussian at points [n, 2]."""
    by_dim = ((points - center) / scale) ** 2 / 2 + np.log(scale)
    return -by_dim.sum(axis=1) - np.log(2 * np.pi)


@pytest.fixture
def lines(monkeypatch):
    """[(vertices [n, 2] of each contour, text below) of every latent space]."""
    drawn = []

    def save(figure, path):
        axes = figure.axes[0]
        found = [c for c in axes.collections if isinstance(c, ContourSet)]
        paths = [line.vertices for each in found for line in each.get_paths()]
        drawn.append((paths, [text.get_text() for text in axes.texts]))

    monkeypatch.setattr(figures, "_save", save)
    return drawn


@pytest.mark.parametrize(
    "center, scale", [((0, 0), (1, 1)), ((1, -2), (2, 0.5))], ids=["N(0, 1)", "another"]
)
@pytest.mark.parametrize("low", [-4, 0], ids=["all", "a part"])
def test_contours_hold_50_90_and_99_percent_of_the_prior(lines, center, scale, low):
    """P(|e| < r) = 1 - exp(-r^2 / 2) for e ~ N(0, 1) in two dimensions; also where the
    points lie in a part of it alone."""
    points = center + RANDOM.uniform(low, 4, [200, 2]) * scale
    draws = center + np.random.default_rng(2).standard_normal([10_000, 2]) * scale
    prior = partial(normal, center=center, scale=scale), draws
    figures.latent_space("x.png", points, np.arange(200) % 10, prior=prior)
    ((paths, texts),) = lines
    assert len(paths) == 3 and "lines: 50, 90 and 99 % of the prior" in texts
    for vertices, share in zip(paths, (0.99, 0.9, 0.5), strict=True):
        radii = np.linalg.norm((vertices - center) / scale, axis=1)
        np.testing.assert_allclose(radii, np.sqrt(-2 * np.log(1 - share)), rtol=0.03)


def test_without_a_prior_there_are_no_contours(lines):
    for dimensions in (1, 2, 5):
        z_mean = RANDOM.standard_normal([50, dimensions])
        figures.latent_space("x.png", z_mean, LABELS)
        paths, texts = lines[-1]
        assert paths == [] and not any("prior" in text for text in texts)


def curves(monkeypatch, history):
    """The axes of learning curves that are not saved."""
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: drawn.append(figure))
    figures.learning_curves("x.png", history, "nats an image")
    return drawn[0].axes


def test_learning_curves_show_the_parts_of_every_epoch(monkeypatch):
    for axes, title, values in zip(
        curves(monkeypatch, HISTORY),
        ("distortion + rate", "distortion", "rate"),
        ([18.0, 9.0], [9.0, 4.5], [9.0, 4.5]),
        strict=True,
    ):
        assert axes.get_title() == title
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert list(lines) == ["train", "validation"]
        for line in lines.values():
            np.testing.assert_array_equal(line.get_xdata(), [1, 2])
            np.testing.assert_array_equal(line.get_ydata(), values)


def test_learning_curves_name_their_unit_once(monkeypatch):
    names = [axes.get_ylabel() for axes in curves(monkeypatch, HISTORY)]
    assert names == ["nats an image", "", ""]


HIGH_FIRST = [
    {"epoch": e, "train_distortion": d, "train_rate": 2.0, "validation_rate": 1.0,
     "validation_distortion": d + off}
    for e, d, off in ((1, 500.0, 1), (2, 100.0, 1), (3, 98.0, -1))
]  # fmt: skip


def test_limits_are_those_from_the_second_epoch_on(monkeypatch):
    low, high = curves(monkeypatch, HIGH_FIRST)[1].get_ylim()
    assert 95 < low < 97 and 101 < high < 103
    low, high = curves(monkeypatch, HIGH_FIRST[:1])[1].get_ylim()
    assert low < 500 and high > 501  # of a single epoch, its own


@pytest.mark.parametrize("same", [False, True])
def test_the_last_value_stands_at_the_end_of_its_line(monkeypatch, same):
    """The higher above the lower; neither on the other where they are equal."""
    last = HIGH_FIRST[-1] | ({"validation_distortion": 98.0} if same else {})
    axes = curves(monkeypatch, [*HIGH_FIRST[:-1], last])[1]
    train, validation = axes.texts
    assert train.get_text() == "98.00" and train.xy == (3, 98)
    assert validation.get_text() == ("98.00" if same else "97.00")
    assert (train.get_va(), validation.get_va()) == ("bottom", "top")
    for text, line in zip(axes.texts, axes.get_lines(), strict=True):
        assert text.get_color() == line.get_color()


# --- Images beside what a model makes of them -----------------------------------------


def images(rows):
    """Image number i is grey i / 100 all over."""
    return np.tile(np.array(rows)[:, None, None] / 100, [1, 28, 28])


def decode(z, labels):
    """Grey by the first latent and the label."""
    return np.tile((z[:, 0] + labels)[:, None, None] / 1000, [1, 28, 28])


@pytest.fixture
def rows_drawn(monkeypatch):
    """[(path, title, grey of each image, names) of every picture of rows]."""
    drawn = []

    def image_rows(path, title, rows, names=()):
        greys = [[float(np.unique(image).item()) for image in row] for row in rows]
        drawn.append((path, title, greys, names))

    monkeypatch.setattr(figures, "image_rows", image_rows)
    return drawn


@pytest.mark.parametrize("count", [50, 36, 5, 1])
def test_each_reconstruction_is_below_its_image(tmp_path, rows_drawn, count):
    labels, z_mean = np.arange(count) % 10, 10.0 * np.arange(count)[:, None]
    to = tmp_path / "x.png"
    figures.reconstructions(to, "test", images, labels, z_mean, decode)
    ((path, title, greys, names),) = rows_drawn
    assert path == to and title.startswith("Test images")
    assert names == ["image", "reconstruction"] * 3 and len(greys) == 6
    shown = np.arange(min(count, 36))
    np.testing.assert_allclose(np.concatenate(greys[::2]), shown / 100)
    of_them = (10 * shown + shown % 10) / 1000
    np.testing.assert_allclose(np.concatenate(greys[1::2]), of_them)
    assert [len(row) for row in greys[::2]] == [len(row) for row in greys[1::2]]


def test_interpolations_go_round_from_class_to_class(tmp_path, rows_drawn):
    """Along the line between posterior means, with the label of where they start."""
    labels, z_mean = np.array([7, 7, 2, 9, 2]), np.array([[0.0], [5], [90], [45], [1]])
    to = tmp_path / "x.png"
    figures.interpolations(to, "validation", images, labels, z_mean, decode)
    ((path, title, greys, names),) = rows_drawn
    assert path == to and "one validation image" in title
    assert names == ["2 to 7", "7 to 9", "9 to 2"]
    for row, ends, means, label in zip(
        greys,
        ([0.02, 0.0], [0.0, 0.03], [0.03, 0.02]),  # of images 2, 0 and 3 themselves
        ([90, 0], [0, 45], [45, 90]),
        (2, 7, 9),
        strict=True,
    ):
        assert row[:: len(row) - 1] == ends
        line = (np.linspace(*means, 10) + label) / 1000
        np.testing.assert_allclose(row[1:-1], line)


def test_one_class_alone_goes_to_itself(tmp_path, rows_drawn):
    labels, z_mean = np.full(3, 4), np.zeros([3, 1])
    figures.interpolations(tmp_path / "x.png", "test", images, labels, z_mean, decode)
    assert rows_drawn[0][3] == ["4 to 4"]


def test_a_comparison_shows_each_seed_and_each_error(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
    models = {
        "a$b$": (np.array([3.0, 4.0]), 0.0, 0.0),
        "c": (np.array([9.0]), 2.0, 0.5),
    }
    figures.comparison(tmp_path / "plot.png", "-ELBO", models)
    left, right = kept[0].axes
    assert [[*line.get_xdata()] for line in left.lines] == [[3, 4], [9]]
    assert [label.get_text() for label in left.get_yticklabels()] == [*models]
    assert left.yaxis.get_inverted() and "-ELBO" in left.get_title()
    assert [line.get_xdata()[0] for line in right.lines] == [0, 2]
    ends = [bar.get_segments()[0][:, 0].tolist() for bar in right.collections]
    assert ends == [[0, 0], [1, 3]]  # two standard errors to either side
