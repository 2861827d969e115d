from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from core import settings
from core.data import datasets
from core.evaluation import record as records
from core.model.build import build
from core.show import figures, gallery, report


class Folder:
    """What is asked of a `RunFolder`: two epochs of 15 steps."""

    step, epoch = 30, 2
    start = {"start_from": "other", "start_step": 9}

    def __init__(self, path: Path):
        self.path, self.evaluations, self.asked = path, [], None

    def add_evaluation(self, record):
        self.evaluations.append(record)

    def history(self, fields):
        self.asked = fields
        parts = {field: 9.0 for field in fields}
        return [parts | {"epoch": e, "step": 15 * e, "seconds": 2.25} for e in (1, 2)]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "run")


@pytest.fixture(scope="module")
def model():
    """(model, weights) of two latent dimensions."""
    model = build(settings.Model(hidden_sizes=(8,)))
    return model, model.init(0, 0.13)


def data_of(digits, validation_size=30, **changes):
    asked = settings.Data(validation_size=validation_size, **changes)
    return datasets.split("tiny", *digits, asked)


@pytest.fixture
def data(digits):
    return data_of(digits)


def evaluate(model, data, folder, run=None, **changes):
    run = settings.Run(**({"seed": 5} | (run or {})))
    report.evaluate(*model, data, folder, run, settings.Evaluation(**changes))


@pytest.fixture
def drawn(monkeypatch):
    """{figure: its folder} of what would have been drawn, and by which weights."""
    seen = {}

    def watch(module, name, folder_of):
        def draw(*arguments):
            seen[name] = folder_of(arguments)

        monkeypatch.setattr(module, name, draw)

    for name in ("draw_images", "draw_samples", "draw_manifold"):
        watch(gallery, name, lambda arguments: arguments[-1])
    watch(figures, "learning_curves", lambda arguments: arguments[0].parent)
    return seen


def test_a_report_is_a_record_figures_and_a_summary(model, data, folder, capsys):
    evaluate(model, data, folder)
    (record,) = folder.evaluations
    assert list(record)[:3] == ["epoch", "step", "split"]
    assert (record["epoch"], record["step"]) == (2, 30)
    assert (record["start_from"], record["start_step"]) == ("other", 9)
    expected = records.evaluation(
        *model, data, settings.Run(seed=5), settings.Evaluation()
    ).record
    assert record == record | expected | {"seconds": record["seconds"]}
    names = (
        "interpolations latent_space learning_curves manifold reconstructions samples"
    )
    pictures = sorted(path.name for path in (folder.path / "figures").iterdir())
    assert pictures == [f"{name}.png" for name in names.split()]
    output = capsys.readouterr().out
    assert f"Test -ELBO    {record['negative_elbo']:.2f} nats an image" in output
    assert "2 epochs, 30 steps, 4.5 s, from the weights of other after 9" in output
    assert output.endswith(f"All is in     {folder.path}/\n")


def test_figures_are_drawn_with_what_was_measured(model, data, folder, monkeypatch):
    seen = {}
    for module, name in (
        (gallery, "draw_images"),
        (gallery, "draw_samples"),
        (gallery, "draw_manifold"),
        (figures, "learning_curves"),
    ):
        monkeypatch.setattr(module, name, lambda *a, name=name: seen.update({name: a}))
    evaluate(model, data, folder)
    path = folder.path / "figures"
    assert seen["draw_samples"] == (*model, 5, path)
    assert seen["draw_manifold"] == (*model, path)
    *same_model, evaluated, where = seen["draw_images"]
    assert tuple(same_model) == model and where == path
    assert len(evaluated.z_mean) == len(evaluated.split.pixels) == 60
    curves, history, unit = seen["learning_curves"]
    assert curves == path / "learning_curves.png" and unit == "nats an image"
    assert [epoch["step"] for epoch in history] == [15, 30]


def test_figures_can_be_left_out(model, data, folder, drawn, capsys):
    evaluate(model, data, folder, run={"figures": False})
    assert drawn == {} and len(folder.evaluations) == 1
    assert "All is in" in capsys.readouterr().out


def test_without_a_history_there_are_no_curves(
    model, data, folder, drawn, monkeypatch, capsys
):
    monkeypatch.setattr(folder, "history", lambda fields: [])
    evaluate(model, data, folder)
    assert set(drawn) == {"draw_images", "draw_samples", "draw_manifold"}
    assert "30 steps, 0.0 s" in capsys.readouterr().out


PLACES = {  # mode, what is evaluated -> the folder within that of the figures
    ("train", ()): "",
    ("evaluate", ()): "",
    ("train", (("evaluation_images", 20),)): "",
    ("evaluate", (("evaluation_images", 20),)): "test_20",
    ("evaluate", (("evaluation_images", 60),)): "",
    ("evaluate", (("evaluation_images", 1000),)): "",
    ("train", (("evaluation_split", "validation"),)): "",
    ("evaluate", (("evaluation_split", "validation"),)): "validation_30",
}


@pytest.mark.parametrize("mode, changes", PLACES)
def test_figures_of_some_images_have_a_folder_of_their_own(
    model, data, folder, drawn, mode, changes
):
    """So that those of the whole run stay; but training has no others."""
    evaluate(model, data, folder, run={"mode": mode}, **dict(changes))
    path = folder.path / "figures" / PLACES[mode, changes]
    names = ("draw_images", "draw_samples", "draw_manifold", "learning_curves")
    assert drawn == dict.fromkeys(names, path)


def test_curves_need_the_parts_of_the_loss(model, data, digits, folder, drawn):
    parts = "train_loss train_distortion train_rate".split()
    held_out = [name.replace("train", "validation") for name in parts]
    assert report.curves(data) == ["epoch", "step", "seconds", *parts, *held_out]
    without = data_of(digits, validation_size=0)
    assert report.curves(without) == ["epoch", "step", "seconds", *parts]
    evaluate(model, without, folder)
    assert folder.asked == report.curves(without)


def test_what_grey_pixels_give_is_not_called_an_elbo(
    model, digits, folder, drawn, monkeypatch, capsys
):
    units = []
    monkeypatch.setattr(
        figures, "learning_curves", lambda path, history, unit: units.append(unit)
    )
    evaluate(model, data_of(digits, binarization="none"), folder)
    assert units == ["grey-pixel loss an image, not an ELBO"]
    output = capsys.readouterr().out
    assert "Test loss     " in output and "-ELBO " not in output


@pytest.mark.parametrize("whole", [True, False])
def test_the_part_is_told_by_the_record(whole):
    evaluated = SimpleNamespace(
        record={"split": "test", "images": 60}, of_images=60 if whole else 61
    )
    assert report.part_of(evaluated, "evaluate") == ("" if whole else "test_60")
    assert report.part_of(evaluated, "train") == ""


def test_the_summary_counts_the_images_of_the_split(model, data, folder, drawn, capsys):
    evaluate(model, data, folder, evaluation_images=20)
    assert "tiny, 20 of 60 test images" in capsys.readouterr().out
    assert np.isfinite(folder.evaluations[0]["negative_elbo"])
