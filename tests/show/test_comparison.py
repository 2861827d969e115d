import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from absl.testing import flagsaver

import flags
import loop
from core import settings
from core.errors import UserError
from core.run import config, files, metrics
from core.show import comparison, figures
from tests.conftest import run, small_settings

SHAPES = {"one": {}, "other_seed": {"seed": 1}, "beta": {"beta": 4.0}}


@pytest.fixture
def runs(two_epochs, tmp_path):
    """{name: folder} of a run, and of copies that say to have another seed or beta, and
    whose losses are a and b nats higher: of each image, and of each second one."""
    folders = {}
    for number, (name, changes) in enumerate(SHAPES.items()):
        folders[name] = shutil.copytree(two_epochs, tmp_path / name)
        change(folders[name], **changes)
        (record,) = metrics.read(folders[name] / "evaluations.jsonl")
        path = folders[name] / record["file"]
        found = files.read_arrays(path)
        found["distortion"] += 3 * number
        found["rate"][::2] += number
        files.write_arrays(path, found)
    return folders


def change(folder, dataset=(), **changes):
    """Let a run say that it was made with other flags, or on other data."""
    kept = config.read(folder)
    kept["flags"] |= changes
    kept["dataset"] |= dict(dataset)
    config.write(folder, kept)


def record_again(folder, **changes):
    """An evaluation more, with a record that differs in this."""
    *_, record = metrics.read(folder / "evaluations.jsonl")
    metrics.append(folder / "evaluations.jsonl", record | changes)


def compare(*folders, seed=0, **changes):
    """Compare runs, as `loop` does."""
    names = ",".join(map(str, folders))
    asked = {"mode": "compare", "runs": names, "seed": seed} | changes
    loop.run(settings.of_values(asked), {*asked})


def rows(folder):
    """The cells of a table that was written."""
    text = (Path(folder) / "comparison/table.md").read_text()
    return [line[2:-2].split(" | ") for line in text.split("\n")[2:-1]]


def test_models_are_compared_in_one_table(runs, capsys):
    one, other, beta = runs.values()
    compare(one, other, beta)
    output = capsys.readouterr().out
    text = (one / "comparison/table.md").read_text()
    assert text in output and output.endswith(f"All is in     {one}/comparison/\n")
    assert text.startswith("60 test images, with pixels of seed 0; nats an image:\n\n|")
    header, line, first, second = rows(one)
    assert header[2:5] == ["-ELBO", "distortion", "rate"]
    assert header[5:] == [f"{name}, paired" for name in header[2:5]]
    assert {*line} == {"---"} and len(line) == len(header) == len(first) == len(second)
    assert first[:2] == [f"{one}, {other}", ""] and first[5:] == [""] * 3
    assert second[:2] == [str(beta), "beta=4.0"]


def test_a_model_has_mean_and_deviation_over_its_seeds(runs):
    one, other, beta = runs.values()
    compare(one, other, beta)
    (record,) = metrics.read(one / "evaluations.jsonl")
    elbo, (_, _, first, second) = record["negative_elbo"], rows(one)
    assert first[2] == f"{elbo + 1.75:.2f} +- {3.5 / 2**0.5:.2f}"
    assert first[4] == f"{record['rate'] + 0.25:.2f} +- {0.5 / 2**0.5:.2f}"
    assert second[2] == f"{elbo + 7:.2f}"  # one seed has no deviation


def test_differences_are_taken_image_by_image(runs):
    """Their standard error is of the difference alone: 6 nats, and 2 of each second
    image, whatever the images themselves cost."""
    one, _, beta = runs.values()
    compare(one, beta)
    error = np.std([0, 2] * 30, ddof=1) / 60**0.5
    expected = ["+7.00", "+6.00", "+1.00"]
    expected = [
        f"{n} +- {e:.2f}" for n, e in zip(expected, (error, 0, error), strict=True)
    ]
    assert rows(one)[-1][-3:] == expected
    compare(beta, one)
    assert rows(beta)[-1][-3] == expected[0].replace("+7", "-7")
    by_hand = comparison.entry(str(one), settings.Evaluation(), 0).losses
    assert np.std(by_hand["-ELBO"]) > 10 * np.std([0, 2])


def test_a_picture_has_every_seed_and_every_difference(runs, monkeypatch):
    one, other, beta = runs.values()
    compare(one, other, beta)
    assert (one / "comparison/plot.png").read_bytes().startswith(b"\x89PNG")
    seen = []
    monkeypatch.setattr(figures, "comparison", lambda *drawn: seen.append(drawn))
    compare(one, other, beta)
    ((path, loss, drawn),) = seen
    assert (path, loss) == (one / "comparison/plot.png", "-ELBO")
    assert [*drawn] == [str(one), str(beta)]
    means, paired, error = drawn[str(one)]
    assert means[1] - means[0] == pytest.approx(3.5, abs=1e-4) and paired == error == 0
    assert drawn[str(beta)][1] == pytest.approx(7 - 1.75, abs=1e-4)


def test_a_changed_program_makes_another_model(runs):
    """Whoever changes a formula has the same flags, and other weights."""
    one, other, _ = runs.values()
    kept = config.read(other)
    kept["versions"]["program"] = "changed"
    config.write(other, kept)
    compare(one, other)
    assert rows(one)[-1][:2] == [str(other), "program=changed"]


def test_how_a_run_was_computed_makes_no_other_model(runs):
    one, other, _ = runs.values()
    change(other, eager=True, jit=True, figures=True, data_dir="/elsewhere")
    compare(one, other)
    assert len(rows(one)) == 3


def test_log_p_is_compared_where_it_is_asked_for(runs):
    """It needs as many samples of each; and an evaluation with it has an ELBO too."""
    one, _, beta = runs.values()
    asked = {"importance_samples": 7, "bfloat16": False}
    for folder in (one, beta):
        with pytest.raises(UserError, match=f"^{folder}.* --importance_samples=7"):
            compare(one, beta, importance_samples=7)
        (record,) = metrics.read(folder / "evaluations.jsonl")
        found = files.read_arrays(folder / record["file"])
        found["log_p"] = -found["rate"].astype(float)
        files.write_arrays(folder / "evaluations/k7.npz", found)
        record_again(folder, file="evaluations/k7.npz", **asked)
    compare(one, beta, importance_samples=7)
    assert rows(one)[0][5] == "-log p(x)" and rows(one)[-1][-1][:5] == "+1.00"
    compare(one, beta)
    assert "-log p(x)" not in rows(one)[0]
    with pytest.raises(UserError, match="--importance_samples=5 "):
        compare(one, beta, importance_samples=5)
    with pytest.raises(UserError, match="--bfloat16=True "):
        compare(one, beta, importance_samples=7, bfloat16=True)


DIFFERENT = {
    "data is tiny": {"dataset": {"sha256": 64 * "e"}},
    "binarization is dynamic and static": {"binarization": "static"},
    "conditional is False and True": {"conditional": True},
}


@pytest.mark.parametrize("reason", DIFFERENT)
def test_what_is_of_other_data_is_refused(runs, reason):
    one, _, beta = runs.values()
    change(beta, **DIFFERENT[reason])
    with pytest.raises(UserError, match=f"^{one} and {beta} differ: {reason}"):
        compare(one, beta)
    assert not (one / "comparison").exists()


def test_validation_images_are_the_same_ones(runs):
    one, _, beta = runs.values()
    change(beta, {"validation_images": 20})
    compare(one, beta)
    with pytest.raises(UserError, match="validation_images is 30 and 20"):
        compare(one, beta, evaluation_split="validation", evaluation_images=9)


@pytest.mark.parametrize(
    "changes", [{"images": 7}, {"split": "validation"}, {"seed": 3}, {"step": 15}]
)
def test_an_evaluation_of_something_else_does_not_count(runs, changes):
    one, _, beta = runs.values()
    (record,) = metrics.read(beta / "evaluations.jsonl")
    (beta / "evaluations.jsonl").unlink()
    metrics.append(beta / "evaluations.jsonl", record | changes)
    with pytest.raises(UserError, match=f"^{beta}: expected .* --run_dir={beta}$"):
        compare(one, beta)


def test_numbers_that_are_gone_or_damaged_are_to_be_made_again(runs):
    one, other, beta = runs.values()
    for folder, spoil in ((other, Path.unlink), (beta, lambda p: p.write_bytes(b"PK"))):
        (record,) = metrics.read(folder / "evaluations.jsonl")
        spoil(folder / record["file"])
    with pytest.raises(UserError, match=f"^{other}, {beta}: .*run_dir={other}; python"):
        compare(one, other, beta)


def test_a_damaged_record_is_named(runs):
    one, _, beta = runs.values()
    (beta / "evaluations.jsonl").write_text("{\n")
    with pytest.raises(UserError, match="evaluations.jsonl: line 1 is damaged"):
        compare(one, beta)


@pytest.mark.parametrize("names", ["", "{one}", "{one},{one}", "{one},{one}/."])
def test_a_single_run_is_not_compared(runs, names):
    with pytest.raises(UserError, match="^--runs: expected folders, two or more"):
        compare(names.format(one=runs["one"]))


def test_a_copy_of_a_run_is_no_other_seed(runs, tmp_path):
    copied = shutil.copytree(runs["one"], tmp_path / "copied")
    with pytest.raises(UserError, match="one and .*copied are one model of one seed"):
        compare(runs["one"], copied)


def test_a_folders_name_does_not_break_the_table(runs, tmp_path):
    strange = shutil.move(runs["beta"], tmp_path / "a|b\nc")
    compare(runs["one"], strange)
    *_, last = (runs["one"] / "comparison/table.md").read_text().splitlines()
    assert last.startswith(f"| {tmp_path}/a\\|b c | ") and last.count(" | ") == 7


def test_a_folder_without_a_run_is_named(runs, tmp_path):
    with pytest.raises(UserError, match="nowhere has no checkpoint"):
        compare(runs["one"], tmp_path / "nowhere")
    with pytest.raises(UserError, match="^--run_dir=: expected the name of a folder"):
        compare(runs["one"], "")


def test_grey_pixels_have_a_loss_and_no_elbo(runs):
    one, _, beta = runs.values()
    for folder in (one, beta):
        change(folder, binarization="none")
    compare(one, beta)
    assert rows(one)[0][2] == "loss"


def test_the_command_of_a_refusal_makes_two_seeds_comparable(
    data_dir, two_epochs, tmp_path, monkeypatch
):
    """Test pixels are drawn by a run's seed, unless it is evaluated with another."""
    one = shutil.copytree(two_epochs, tmp_path / "one")
    run(small_settings(data_dir, tmp_path / "two"), seed=1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="^two: .* make it with: ") as error:
        compare("one", "two")
    _, program, *arguments = shlex.split(str(error.value).split("make it with: ")[1])
    with flagsaver.flagsaver():
        flags.parse([program, *arguments])
        loop.run(flags.settings(), flags.typed())
    compare("one", "two")
    assert rows(one)[-1][0] == "one, two" and " +- " in rows(one)[-1][2]
