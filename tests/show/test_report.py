import errno
from pathlib import Path

import numpy as np
import pytest

from core import settings
from core.data import datasets
from core.data.digits import Digits
from core.errors import UserError
from core.evaluation import record as records
from core.model.build import build
from core.run import files, program
from core.settings import Objective, Settings, values_of
from core.show import explorer, figures, gallery, report

PICTURES = (
    *("learning_curves.png", "latent_space.png", "reconstructions.png"),
    *("interpolations.png", "manifold.png", "samples.png", "explorer.html"),
)


class Folder:
    """What is asked of a `RunFolder`: two epochs of 15 steps."""

    step, epoch, kl_weights = 30, 2, (2.0, 2.0)
    weights = {"step": 30, "checkpoint": "0123456789ab"}
    start = {"start_from": "other", "start_step": 9}
    gone = False

    def __init__(self, path: Path):
        self.path, self.evaluations, self.asked = path, [], None
        objective = Objective(beta=2.0, num_samples=3)
        self.recorded = {"flags": values_of(Settings(objective=objective))}

    def expect_there(self):
        if self.gone:
            raise UserError("it was moved")

    def add_evaluation(self, record):
        self.evaluations.append(record)

    def evaluated_before(self, fields):
        for record in self.evaluations:
            if fields.items() <= record.items():
                return files.read_arrays(self.path / fields["file"])
        return None

    def history(self, fields):
        self.asked = fields
        parts = {field: 9.0 for field in fields}
        return [
            parts | {"epoch": e, "step": 15 * e, "seconds": 2.25, "kl_weight": weight}
            for e, weight in enumerate(self.kl_weights, start=1)
        ]


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
    """{figure: its folder} of what would have been drawn. Files stand for pictures."""
    seen = {}

    def draw(path, *rest):
        files.write_whole(path, b"a picture")
        seen[path.name] = path.parent

    for name in ("latent_space", "manifold", "image_rows", "learning_curves"):
        monkeypatch.setattr(figures, name, draw)
    monkeypatch.setattr(explorer, "write", draw)
    return seen


def test_first_images_of_a_set_in_order_are_said_to_be_of_few_classes(
    model, digits, folder, drawn, capsys
):
    train_set, test_set = digits
    rows = np.argsort(test_set.labels, kind="stable")
    test_set = Digits(
        *(np.tile(a[rows], (10,) + (1,) * (a.ndim - 1)) for a in test_set)
    )
    sets = (
        train_set,
        Digits(*(a[np.argsort(test_set.labels, kind="stable")] for a in test_set)),
    )
    evaluate(model, data_of(sets), folder, evaluation_images=40)
    line = "Class 0 is 100% of the first 40 test images and"
    assert line in capsys.readouterr().out
    evaluate(model, data_of(sets), folder)
    assert "Class" not in capsys.readouterr().out


def test_a_report_is_a_record_figures_and_a_summary(model, data, folder, capsys):
    evaluate(model, data, folder)
    (record,) = folder.evaluations
    start = [*folder.start]
    assert list(record)[:2] == ["epoch", "step"] and list(record)[8:10] == start
    assert (record["epoch"], record["step"]) == (2, 30)
    assert (record["start_from"], record["start_step"]) == ("other", 9)
    expected = records.evaluation(
        *model, data, settings.Run(seed=5), settings.Evaluation()
    ).record
    assert record == record | expected | {"seconds": record["seconds"]}
    program_ = record["program"]
    assert (
        record["file"]
        == f"evaluations/test_60_seed5_step30_0123456789ab_{program_}.npz"
    )
    with np.load(folder.path / record["file"]) as numbers:
        assert set(numbers) == {"distortion", "rate"}
        assert np.mean(numbers["rate"]) == pytest.approx(record["rate"])
    pictures = {path.name for path in (folder.path / "figures").iterdir()}
    assert pictures == {*PICTURES}
    output = capsys.readouterr().out
    assert f"Test -ELBO    {record['negative_elbo']:.2f} nats an image" in output
    assert "2 epochs, 30 steps, 4.5 s, from the weights of other after 9" in output
    assert output.endswith(f"All is in     {folder.path}/\n")


def test_figures_are_drawn_with_what_was_measured(model, data, folder, monkeypatch):
    seen = {}

    def watch(module, name):
        def call(*arguments):
            seen[name] = arguments
            return {}

        monkeypatch.setattr(module, name, call)

    watch(gallery, "drawings")
    watch(figures, "learning_curves")
    evaluate(model, data, folder)
    *same_model, evaluated = seen["drawings"]
    assert tuple(same_model) == model
    assert evaluated.record["split"] == "test" and evaluated.record["seed"] == 5
    assert len(evaluated.z_mean) == len(evaluated.split.pixels) == 60
    path, history, unit = seen["learning_curves"]
    assert path == folder.path / "figures" / "learning_curves.png"
    assert unit == "nats an image"
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
    assert set(drawn) == {*PICTURES} - {"learning_curves.png"}
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


@pytest.mark.parametrize("mode, changes", PLACES, ids=str)
def test_figures_of_some_images_have_a_folder_of_their_own(
    model, data, folder, drawn, mode, changes
):
    """So that those of the whole run stay; but training has no others. The page to
    explore is made of the whole alone."""
    evaluate(model, data, folder, run={"mode": mode}, **dict(changes))
    place = PLACES[mode, changes]
    made = {*PICTURES} - ({"explorer.html"} if place else set())
    assert drawn == dict.fromkeys(made, folder.path / "figures" / place)


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


def test_the_summary_counts_the_images_of_the_split(model, data, folder, drawn, capsys):
    evaluate(model, data, folder, evaluation_images=20)
    assert "tiny, 20 of 60 test images" in capsys.readouterr().out
    assert np.isfinite(folder.evaluations[0]["negative_elbo"])


# --- What a record says of its weights ------------------------------------------------


def test_what_the_weights_were_made_with_stands_beside_their_numbers(
    model, data, folder
):
    evaluate(model, data, folder, run={"figures": False})
    (record,) = folder.evaluations
    made_with = {"objective": "elbo", "num_samples": 3, "estimator": "standard"}
    made_with |= {"beta": 2.0, "program": program.version()["sha256"][:12]}
    made_with["prior"] = "standard"
    assert made_with.items() <= record.items() and len(record["program"]) == 12


def test_the_prior_is_the_runs_own_or_what_was_there_before_priors(model, data, folder):
    flags = folder.recorded["flags"]
    del flags["prior"], flags["prior_components"]  # begun by an older program
    evaluate(model, data, folder, run={"figures": False})
    folder.recorded["flags"] = flags | {"prior": "flow"}
    evaluate(model, data, folder, run={"figures": False})
    assert [record["prior"] for record in folder.evaluations] == ["standard", "flow"]


@pytest.mark.parametrize(
    ("beta", "last", "said"),
    [
        (2.0, 0.04, ", KL weight only 0.04 at the end"),
        (2.0, 2.0, ""),
        (0.3, float(np.float32(0.3)), ""),  # a warm-up's weight is a float32
        (0.0, 0.0, ""),
    ],
    ids=["below", "whole", "rounded", "none"],
)
def test_a_kl_weight_that_stayed_below_beta_is_said(
    model, data, folder, capsys, beta, last, said
):
    """That of the last epoch, which is recorded too."""
    folder.kl_weights = (beta / 100, last)
    folder.recorded["flags"]["beta"] = beta
    evaluate(model, data, folder, run={"figures": False})
    assert folder.evaluations[0]["kl_weight"] == last
    output = capsys.readouterr().out
    assert f"2 epochs, 30 steps, 4.5 s{said}, from" in output
    assert ("only" in output) == bool(said)


def test_records_without_a_kl_weight_are_reported_without_one(
    model, data, folder, capsys, monkeypatch
):
    """Those of a run that took no step, or that was begun by an older program."""
    for history in ([], [{"epoch": 1, "step": 15, "seconds": 1.0}]):
        monkeypatch.setattr(folder, "history", lambda fields, found=history: found)
        evaluate(model, data, folder, run={"figures": False})
        assert "kl_weight" not in folder.evaluations[-1]
    assert "KL weight" not in capsys.readouterr().out


# --- What is finished is shown before what can fail -----------------------------------


def test_numbers_are_shown_before_anything_is_written(
    model, data, folder, drawn, monkeypatch, capsys
):
    def killed(record):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "add_evaluation", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, data, folder, importance_samples=3)
    output = capsys.readouterr().out
    assert "Test -ELBO" in output and "-log p(x)" in output and drawn == {}


def test_they_are_recorded_before_pictures_are_drawn(
    model, data, folder, drawn, monkeypatch
):
    def killed(*arguments):
        raise KeyboardInterrupt

    for name in ("latent_space", "reconstructions", "image_rows", "learning_curves"):
        monkeypatch.setattr(figures, name, killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, data, folder)
    assert len(folder.evaluations) == 1


@pytest.mark.parametrize("name", ["evaluations.jsonl", *PICTURES])
def test_what_cannot_be_written_costs_itself_alone(
    model, data, folder, drawn, monkeypatch, capsys, name
):
    """It is named, once as it fails and once at the end; and made by the next time."""
    pictures, recorded = folder.path / "figures", name not in PICTURES
    with monkeypatch.context() as context:
        if recorded:
            read_only = OSError(errno.EROFS, "Read-only file system")
            context.setattr(folder, "add_evaluation", raising(read_only))
        else:
            (pictures / name).mkdir(parents=True)  # it is in the way
        with pytest.raises(UserError) as error:
            evaluate(model, data, folder, importance_samples=3)
    assert str(error.value) == (
        f"not written: {name}; the same command with --mode=evaluate makes what is "
        "missing"
    )
    output, errors = capsys.readouterr()
    assert "-log p(x)" in output and "All is in" not in output
    assert errors.startswith(f"{name} cannot be written: ") and errors.count("\n") == 1
    made = {path.name for path in pictures.iterdir() if path.is_file()}
    assert made == {*PICTURES} - {name} and len(folder.evaluations) == (not recorded)
    if not recorded:
        (pictures / name).rmdir()
        monkeypatch.setattr(records, "log_marginal", None)  # it is known
    evaluate(model, data, folder, importance_samples=3)
    assert {path.name for path in pictures.iterdir()} == {*PICTURES}
    assert "All is in" in capsys.readouterr().out


def raising(error):
    """A function that does."""

    def function(*arguments):
        raise error

    return function


def test_all_that_cannot_be_written_is_named(model, data, folder, drawn, capsys):
    """A file is in the place of the folder of all pictures."""
    folder.path.mkdir()
    (folder.path / "figures").write_text("in the way")
    with pytest.raises(UserError, match=f"not written: {', '.join(PICTURES)}; the"):
        evaluate(model, data, folder)
    assert len(capsys.readouterr().err.splitlines()) == len(PICTURES)
    assert (folder.path / "figures").read_text() == "in the way"


def test_where_its_folder_is_lost_nothing_is_written(model, data, folder):
    folder.gone = True
    with pytest.raises(UserError, match="it was moved"):
        evaluate(model, data, folder)
    assert not folder.path.exists()


def test_a_picture_for_which_memory_is_short_costs_itself_alone(
    model, data, folder, drawn, monkeypatch
):
    monkeypatch.setattr(figures, "latent_space", raising(MemoryError("no room")))
    with pytest.raises(UserError, match="not written: latent_space.png;"):
        evaluate(model, data, folder)
    assert set(drawn) == {*PICTURES} - {"latent_space.png"}


def test_a_mistake_in_a_figure_is_no_matter_of_writing(
    model, data, folder, drawn, monkeypatch
):
    """Its traceback is shown, after the numbers."""
    monkeypatch.setattr(figures, "latent_space", raising(IndexError("a mistake")))
    with pytest.raises(IndexError, match="a mistake"):
        evaluate(model, data, folder)


def test_records_that_are_damaged_are_seen_before_the_work(
    model, data, folder, monkeypatch
):
    """Not after minutes of evaluation, whose numbers would never be shown."""
    monkeypatch.setattr(folder, "history", raising(UserError("line 1 is damaged")))
    monkeypatch.setattr(records, "evaluation", raising(AssertionError("worked")))
    with pytest.raises(UserError, match="line 1 is damaged"):
        evaluate(model, data, folder)


# --- The same evaluation again --------------------------------------------------------


@pytest.fixture
def computed(model, data, folder, monkeypatch):
    """Evaluates -> how often -log p(x) was computed. It is known of 3 samples."""
    made = []

    def log_marginal(*arguments):
        made.append(arguments)
        return np.array([-101.0, -100.0])

    def computed(run=None, **changes):
        made.clear()
        run = {"figures": False} | (run or {})
        evaluate(model, data, folder, run, **{"importance_samples": 3} | changes)
        return len(made)

    monkeypatch.setattr(records, "log_marginal", log_marginal)
    assert computed() == 1
    return computed


@pytest.mark.parametrize("images", [0, 60, 1000], ids=["default", "all", "too many"])
def test_the_same_evaluation_does_not_compute_log_p_again(
    computed, folder, capsys, images
):
    assert computed(evaluation_images=images) == 0
    first, second = folder.evaluations
    assert second | {"seconds": 0} == first | {"seconds": 0}
    assert second["nll"] == 100.5
    assert "100.50 +- 0.50 (3 importance samples)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {"importance_samples": 4},
        {"evaluation_images": 59},
        {"evaluation_split": "validation"},
        {"bfloat16": True},
        {"run": {"seed": 6}},
    ],
    ids=str,
)
def test_another_evaluation_computes_it(computed, changes):
    assert computed(**changes) == 1 and computed(**changes) == 0


STEP_45 = Folder.weights | {"step": 45}
AGAIN = Folder.weights | {"checkpoint": "ba9876543210"}  # after damage, otherwise


@pytest.mark.parametrize(
    "change",
    [
        lambda folder, patch: setattr(folder, "weights", STEP_45),
        lambda folder, patch: setattr(folder, "weights", AGAIN),
        lambda folder, patch: folder.recorded["flags"].update(beta=1.0),
        lambda folder, patch: patch(program, "version", lambda: {"sha256": "0" * 64}),
    ],
    ids=["weights", "the step again", "flags", "program"],
)
def test_other_weights_and_other_programs_compute_it(
    computed, folder, monkeypatch, change
):
    change(folder, monkeypatch.setattr)
    assert computed() == 1


def test_an_evaluation_without_samples_knows_no_log_p(computed, folder):
    """Though the one before, of the same weights, has it."""
    assert computed(importance_samples=0) == 0
    assert "nll" not in folder.evaluations[-1]


def test_log_p_is_computed_again_if_the_images_numbers_are_lost(computed, folder):
    """Or damaged; then they are there again."""
    path = folder.path / folder.evaluations[0]["file"]
    path.unlink()
    assert computed() == 1 and computed() == 0
    path.write_bytes(path.read_bytes()[:-30])
    assert computed() == 1 and computed() == 0
    assert np.load(path)["log_p"].tolist() == [-101, -100]


def test_each_evaluation_has_a_file_of_its_own(computed, folder):
    for changes in (
        {"importance_samples": 4},
        {"evaluation_images": 59},
        {"evaluation_split": "validation"},
        {"bfloat16": True},
        {"importance_samples": 0},
        {"run": {"seed": 6}},
    ):
        computed(**changes)
    assert len({record["file"] for record in folder.evaluations}) == 7
    assert len(list((folder.path / "evaluations").iterdir())) == 7
