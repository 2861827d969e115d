import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.model.build import build
from core.run import files
from core.run.folder import NoFolder
from core.settings import Model, Run
from core.show import figures, film, gallery
from tests.conftest import run, small_settings
from tests.runs import StopAfter, assert_same_numbers, weights_and_moments


def new(**settings):
    model = build(Model(hidden_sizes=(8,), upper_hidden_sizes=(6,), **settings))
    return model, model.init(0, 0.13)


@pytest.fixture(scope="module")
def plain():
    return new()


def kept(folder):
    """{name: frame} of the frames in a run's folder."""
    paths = (Path(folder) / "film").glob("*")
    return {path.name: files.read_arrays(path)["frame"] for path in paths}


def frames_of(content):
    """(frames, their milliseconds) of a GIF."""
    image, frames, times = Image.open(io.BytesIO(content)), [], []
    for i in range(image.n_frames):
        image.seek(i)
        frames.append(np.array(image.convert("L")))
        times.append(image.info["duration"])
    return frames, times


# --- A frame --------------------------------------------------------------------------


def test_the_epochs_are_fibonaccis():
    a, b, *_ = film.EPOCHS
    assert (a, b) == (1, 2) and film.EPOCHS[-1] > 1000
    for first, second, third in zip(
        film.EPOCHS, film.EPOCHS[1:], film.EPOCHS[2:], strict=False
    ):
        assert third == first + second


def test_a_frame_of_two_dimensions_is_the_manifold(plain):
    model, weights = plain
    z, *_ = gallery.manifold_points(model.prior, weights, 0)
    rows = np.split(gallery.decode(model, weights, z, None), figures.MANIFOLD_SIDE)
    assert_frame(film.picture(model, weights, 0), figures.tile(rows, 0))


@pytest.mark.parametrize(
    "settings",
    [
        {"latent_dim": 3},
        {"conditional": True},
        {"stochastic_layers": 2, "latent_dims": (4, 2)},
    ],
    ids=str,
)
def test_a_frame_of_another_model_has_the_same_noise_at_every_epoch(settings):
    model, weights = new(**settings)
    samples = gallery.sample_rows(model, weights, 3)
    assert_frame(film.picture(model, weights, 3), figures.tile(samples))


def assert_frame(frame, sheet):
    """It is the sheet in 16 greys, of which white and black are two."""
    assert frame.dtype == np.uint8 and set(np.unique(frame)) <= {*range(0, 256, 17)}
    assert np.abs(frame - sheet[..., 0].astype(float)).max() <= 8.5


def test_frames_are_kept_of_some_epochs_and_only_if_asked(plain, tmp_path):
    folder = SimpleNamespace(frames=tmp_path / "film")
    for epoch in range(1, 7):
        film.add_frame(*plain, folder, epoch, Run(film=False))
    assert not folder.frames.exists()
    for epoch in range(1, 7):
        film.add_frame(*plain, folder, epoch, Run(film=True, seed=3))
    assert kept(tmp_path).keys() == {"1.npz", "2.npz", "3.npz", "5.npz"}
    film.add_frame(*plain, NoFolder(), 1, Run(film=True))  # there is nowhere to


# --- The film -------------------------------------------------------------------------


def make(plain, tmp_path, epoch=4):
    folder = SimpleNamespace(frames=tmp_path / "film", epoch=epoch)
    film.make(tmp_path / "film.gif", *plain, folder, 0)
    return frames_of((tmp_path / "film.gif").read_bytes())


def test_a_film_is_of_the_epochs_before_and_of_these_weights(plain, tmp_path, capsys):
    """Frames that a later epoch left, before a checkpoint was lost, are not shown."""
    height, width = film.picture(*plain, 0).shape
    for epoch in film.EPOCHS[:5]:
        grey = np.full([height, width], 17 * epoch, np.uint8)
        files.write_arrays(tmp_path / "film" / f"{epoch}.npz", {"frame": grey})
    frames, times = make(plain, tmp_path)
    assert times == [700, 700, 700, 2500] and capsys.readouterr().out == ""
    inside = [frame[28:-4, 4:-4] for frame in frames]
    for frame, epoch in zip(inside, (1, 2, 3), strict=False):
        assert np.all(frame == 17 * epoch)
    np.testing.assert_array_equal(inside[-1], film.picture(*plain, 0))
    titles = {frame[:28].tobytes() for frame in frames}
    assert len(titles) == 4 and all(frame[:28].min() < 50 for frame in frames)


@pytest.mark.parametrize("damage", [b"", b"damaged", None])
def test_a_frame_that_is_lost_is_left_out_and_said(plain, tmp_path, damage, capsys):
    (tmp_path / "film").mkdir()
    grey = np.zeros([560, 560], np.uint8)
    files.write_arrays(tmp_path / "film" / "1.npz", {"frame": grey})
    if damage is not None:
        (tmp_path / "film" / "2.npz").write_bytes(damage)
    frames, _ = make(plain, tmp_path, epoch=3)
    assert len(frames) == 2
    assert capsys.readouterr().out == (
        "The film is without epoch 2, whose frame is missing or damaged.\n"
    )


def test_a_film_of_noise_is_small_enough(monkeypatch):
    random = np.random.default_rng(0)
    noise = [Image.fromarray(random.integers(0, 256, [592, 568], "u1")) for _ in "1234"]
    whole, _ = frames_of(film.animated(noise))
    monkeypatch.setattr(film, "LIMIT", 300_000)
    content = film.animated(noise)
    smaller, times = frames_of(content)
    assert len(content) <= 300_000 and len(smaller) == len(whole) == len(times) == 4
    assert whole[0].shape == (592, 568) and smaller[0].shape == (148, 142)


# --- A run with a film ----------------------------------------------------------------


@pytest.fixture(scope="module")
def filmed(data_dir, tmp_path_factory):
    """The settings and the folder of three epochs with a film."""
    folder = tmp_path_factory.mktemp("filmed")
    settings = small_settings(data_dir, folder) | {"film": True, "epochs": 3}
    run(settings)
    return settings, folder


def test_a_film_changes_nothing_else(filmed, straight):
    _, folder = filmed
    assert_same_numbers(weights_and_moments(folder), weights_and_moments(straight))
    assert {p.name for p in (folder / "figures").iterdir()} == {"film.gif"}
    assert not (straight / "film").exists() and not (straight / "figures").exists()


def test_a_run_that_was_stopped_has_the_same_film(filmed, tmp_path):
    """With what a process left that was killed as it wrote."""
    settings, folder = filmed
    settings = settings | {"run_dir": str(tmp_path / "run")}
    run(settings, StopAfter(1))
    assert not (tmp_path / "run" / "figures").exists()
    frames = tmp_path / "run" / "film"
    frames.mkdir(exist_ok=True)
    (frames / "3.npz").write_bytes(b"not the last")
    (frames / "3.npz.partial").write_bytes(b"part")
    run(settings)
    assert_same_numbers(kept(tmp_path / "run"), kept(folder))
    films = (path / "figures" / "film.gif" for path in (folder, tmp_path / "run"))
    assert len({path.read_bytes() for path in films}) == 1


def test_a_film_that_could_not_be_written_is_made_by_evaluation(filmed, tmp_path):
    settings, folder = filmed
    shutil.copytree(folder, tmp_path / "run")
    settings = {"run_dir": str(tmp_path / "run"), "data_dir": settings["data_dir"]}
    path = tmp_path / "run" / "figures" / "film.gif"
    before = path.read_bytes()
    path.unlink()
    path.mkdir()  # it is in the way
    with pytest.raises(UserError, match="not written: film.gif; the same command with"):
        run(settings, mode="evaluate", figures=False)
    path.rmdir()
    run(settings, mode="evaluate", figures=False)
    assert path.read_bytes() == before
