"""A run that is stopped, killed or begun from another's weights, and then goes on."""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from core import numerics
from core.data import batches, datasets
from core.errors import UserError
from core.model.build import build
from core.run import checkpoint, config, files, metrics, text
from core.run.process import NoStop
from core.settings import Model, Objective
from tests.conftest import as_arguments, program, run
from tests.runs import (
    StopAfter,
    assert_same_numbers,
    assert_same_run,
    newest_checkpoint,
    timeless,
    weights_and_moments,
)

# --- What is on disk before what ------------------------------------------------------


@pytest.fixture
def writes(monkeypatch):
    """["sync NAME", "place NAME", "remove NAME" ...] in the order of what is done."""
    done, fsync, replace, unlink = [], os.fsync, os.replace, Path.unlink

    def synced(descriptor):
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def placed(source, target):
        done.append(f"place {Path(target).name}")
        replace(source, target)

    def removed(path):
        done.append(f"remove {path.name}")
        unlink(path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", placed)
    monkeypatch.setattr(Path, "unlink", removed)
    return done


def written_whole(name):
    return [f"sync {name}.partial", f"place {name}", "sync run"]


def checkpoint_of(step):
    """Its parts, then the seal of what is on disk, then the list that names it."""
    parts = [f"ckpt-{step}.data-00000-of-00001", f"ckpt-{step}.index"]
    seal = written_whole(f"ckpt-{step}.json")
    return [*(f"sync {part}" for part in parts), *seal, *written_whole("checkpoint")]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a matter of Linux")
@pytest.mark.usefixtures("unreported")
def test_each_write_is_on_disk_before_what_relies_on_it(small, writes):
    """A machine may lose its power anywhere: the run's identity comes first, a record
    before the checkpoint that seals its digest, and what is old goes last."""
    run(small, epochs=1, keep_checkpoints=1)
    endings = ("data-00000-of-00001", "index", "json")
    assert writes == [
        *written_whole("config.json"),
        *written_whole("metrics.jsonl"),  # of no record
        *checkpoint_of(0),
        "sync metrics.jsonl",
        *checkpoint_of(15),
        *(f"remove ckpt-0.{ending}" for ending in endings),
    ]


# --- At the end of an epoch, and inside -----------------------------------------------


@pytest.mark.usefixtures("unreported")
def test_more_epochs_go_on_from_the_end(trained, straight):
    """Also in a folder that was moved in between."""
    moved = trained["run_dir"] + "-moved"
    Path(trained["run_dir"]).rename(moved)
    run(trained, epochs=3, run_dir=moved)
    assert_same_run(moved, straight)


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize(
    ("block_samples", "steps"), [(20, (1, 5, 7)), (140, (5, 20, 30))]
)
def test_a_run_stopped_inside_an_epoch_ends_in_the_same_bits(
    small, straight, monkeypatch, capsys, block_samples, steps
):
    """It says where it stopped, and how to go on."""
    monkeypatch.setattr(sys, "argv", ["loop.py", "--epochs=3"])
    monkeypatch.setattr(numerics, "BLOCK_SAMPLES", block_samples)
    for looks, step in zip((0, 3, 1), steps, strict=True):
        run(small, StopAfter(looks), epochs=3)
        epoch, inside = divmod(step, 15)
        where = f"after {epoch} of 3 epochs"
        where += f" and {inside} of 15 steps of the next" if inside else ""
        assert capsys.readouterr().out.endswith(
            f"Stopped. Run: {small['run_dir']}, {where}\nThe checkpoint of step {step} "
            f"is kept; go on from it with: {sys.executable} loop.py --epochs=3\n"
        )
        assert checkpoint.steps_on_disk(Path(small["run_dir"]))[0] == step
    run(small, epochs=3)
    assert_same_run(small["run_dir"], straight)


@pytest.mark.usefixtures("unreported")
def test_a_stop_as_training_ends_says_so_too(small, capsys):
    """Nothing is evaluated then: the same command does that later."""

    class Late(NoStop):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "deferred" and not value:
                self.asked = signal.SIGTERM

    run(small, Late())
    said = capsys.readouterr().out
    assert f"Stopped. Run: {small['run_dir']}, after 2 of 2 epochs\nThe check" in said
    assert not Path(small["run_dir"], "evaluations.jsonl").exists()


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize(
    ("prior", "ema_decay"), [("standard", 0.0), ("mixture", 0.0), ("flow", 0.9)]
)
def test_a_prior_and_an_average_go_on_in_the_same_bits(
    small, tmp_path, monkeypatch, prior, ema_decay
):
    """Where there are any."""
    monkeypatch.setattr(numerics, "BLOCK_SAMPLES", 100)
    sizes = {"mixture": {"prior_components": 3}, "flow": {"flow_layers": 2}}
    settings = small | {"prior": prior, "ema_decay": ema_decay, "epochs": 1}
    settings |= sizes.get(prior, {})
    run(settings, StopAfter(0))  # inside an epoch
    run(settings)
    stopped, straight = Path(small["run_dir"]), tmp_path / "straight"
    run(settings, run_dir=str(straight))
    found, expected = newest_checkpoint(stopped), newest_checkpoint(straight)
    assert any("/prior/" in name for name in found) == (prior != "standard")
    assert any(name.startswith("average/") for name in found) == (ema_decay > 0)
    assert_same_numbers(found, expected)
    assert timeless(stopped) == timeless(straight) != []


def test_checkpoints_that_are_rarer_than_epochs_change_nothing(
    small, straight, monkeypatch, capsys
):
    """Killed at the end of the second epoch, whose checkpoint is not due yet."""
    monkeypatch.setattr(text, "epoch_line", kill_at(2))
    with pytest.raises(KeyboardInterrupt):
        run(small, epochs=3, checkpoint_every=5)
    assert len(timeless(small["run_dir"])) == 2
    monkeypatch.undo()
    run({"run_dir": small["run_dir"], "mode": "evaluate"}, figures=False)
    assert "Trained       0 epochs, 0 steps, 0.0 s" in capsys.readouterr().out
    run(small, epochs=3, checkpoint_every=2, keep_checkpoints=1)
    assert_same_run(small["run_dir"], straight)


def kill_at(epoch):
    def line(record, epochs):
        if record["epoch"] == epoch:
            raise KeyboardInterrupt
        return ""

    return line


@pytest.mark.usefixtures("unreported")
def test_a_run_killed_before_it_lists_its_last_checkpoint_lists_it_later(
    small, two_epochs, monkeypatch
):
    """TensorFlow's `latest_checkpoint` then finds it, though no step was left."""
    write_whole = files.write_whole

    def killed(path, content):
        if path.name == checkpoint.TF_LIST and b"ckpt-30" in content:
            raise KeyboardInterrupt
        write_whole(path, content)

    with monkeypatch.context() as context:
        context.setattr(files, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            run(small)
    run(small)
    assert_same_run(small["run_dir"], two_epochs)


def test_lost_checkpoints_are_not_trained_over(trained):
    for path in Path(trained["run_dir"]).glob("c*kp*t*"):
        path.unlink()
    with pytest.raises(UserError, match="metrics of a run but none of its checkpoints"):
        run(trained, epochs=3)
    with pytest.raises(UserError, match="none of its checkpoints: put them back"):
        run({"run_dir": trained["run_dir"], "mode": "evaluate"})
    assert len(timeless(trained["run_dir"])) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"beta": 4.0},
        {"learning_rate": 0.01},
        {"objective": "iwae", "num_samples": 5},
        {"learning_rate_schedule": "cosine"},
        {"warmup_epochs": 3, "epochs": 1},
    ],
    ids=str,
)
def test_a_finished_run_is_never_recorded_as_trained_otherwise(
    trained, capsys, changes
):
    """No step would be taken. Its own command still ends well."""
    folder = Path(trained["run_dir"])
    before = {path: path.read_bytes() for path in folder.glob("*.json*")}
    message = r"none is left in which --\w+ was .*: give more --epochs, or "
    with pytest.raises(UserError, match=message + "another --run_dir") as error:
        run(trained, **changes)
    assert len(str(error.value).replace(str(folder), "")) < 200
    assert {path: path.read_bytes() for path in folder.glob("*.json*")} == before
    assert "From here on" not in capsys.readouterr().out
    if len(changes) == 1:
        run(trained)
        assert (folder / "config.json").read_bytes() == before[folder / "config.json"]


def test_a_finished_run_only_evaluates_again(trained, capsys):
    before = weights_and_moments(trained["run_dir"])
    run(trained)
    output = capsys.readouterr().out
    assert "Nothing is left to train" in output and "changed or damaged" not in output
    assert_same_numbers(before, weights_and_moments(trained["run_dir"]))
    assert len(timeless(trained["run_dir"])) == 2
    assert len(metrics.read(Path(trained["run_dir"]) / "evaluations.jsonl")) == 2


@pytest.mark.usefixtures("unreported")
def test_seeds_make_different_runs_and_one_seed_the_same(small, straight, tmp_path):
    run(small, epochs=3)
    assert_same_run(small["run_dir"], straight)
    other = str(tmp_path / "other")
    run(small, epochs=3, seed=1, run_dir=other)
    assert timeless(other) != timeless(straight)


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bits(small, tmp_path):
    """SIGKILL and SIGINT to the real program, against an unkilled one.

    The other one has no home, no reader, no stdin, no stderr, and a locale that cannot
    spell its folder.
    """
    killed, straight = tmp_path / "killed", tmp_path / "stra\u00efght"
    settings = small | {"epochs": 40, "checkpoint_every": 3, "jit": True}
    (tmp_path / "home").write_text("not a folder")
    whole = program(
        *as_arguments(settings | {"run_dir": str(straight)}),
        env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "HOME": f"{tmp_path}/home"},
        by=("sh", "-c", 'exec "$0" "$@" <&- 2>&-'),
    )
    whole.stdout.close()
    arguments = as_arguments(settings | {"run_dir": str(killed)})
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        process = program(*arguments)
        seen = len(timeless(killed))
        while len(timeless(killed)) < seen + 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
        going_on = f"is kept; go on from it with: {sys.executable} " in output
        assert going_on == (number != signal.SIGKILL)
        assert errors == ""
    run(settings, run_dir=str(killed))
    assert whole.wait(timeout=120) == 0
    whole.stderr.close()
    assert_same_run(killed, straight)


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_starts_from_the_weights_of_another(small, tmp_path, capsys, ema_decay):
    """Or from their average. With a rate of almost 0 they stay; all else is new, and
    the end the same bits."""
    other, folder = Path(small["run_dir"]), tmp_path / "new"
    small = small | {"ema_decay": ema_decay}
    run(small)
    settings = small | {"run_dir": str(folder), "start_from": str(other)}
    settings |= {"learning_rate": 1e-12, "seed": 1}
    run(settings, StopAfter(0))
    assert f"Weights: those of {other} after 30 steps" in capsys.readouterr().out
    run(settings)
    assert "Weights: those" not in capsys.readouterr().out
    start = {"start_from": str(other), "start_step": 30}
    assert config.read(folder)["start"] == start
    found, before = newest_checkpoint(folder), newest_checkpoint(other)
    weights = "average" if ema_decay else "params"
    for name in found:
        part, _, variable = name.partition("/")
        is_weight = part in ("params", "average")
        there = f"{weights}/{variable}" if is_weight else name
        same = np.allclose(found[name], before[there], atol=1e-9)
        assert same == is_weight or part == "step", name
    assert [record["step"] for record in timeless(folder)] == [15, 30]
    with pytest.raises(UserError, match="--start_from"):
        run(settings | {"start_from": ""})


def test_where_a_run_started_is_part_of_its_evaluations(trained, tmp_path, capsys):
    folder = tmp_path / "new"
    run(trained | {"run_dir": str(folder), "start_from": trained["run_dir"]}, epochs=1)
    (record,) = metrics.read(folder / "evaluations.jsonl")
    assert record["start_from"] == trained["run_dir"] and record["start_step"] == 30
    assert "from the weights of" in capsys.readouterr().out


def test_a_run_that_was_killed_at_once_starts_with_the_same_weights(trained, tmp_path):
    """Or not at all, if the other run has gone on meanwhile."""
    settings = trained | {"run_dir": str(tmp_path / "new")}
    settings |= {"start_from": trained["run_dir"]}
    with pytest.MonkeyPatch.context() as context:
        context.setattr(checkpoint, "save", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(settings)
    run(trained, epochs=3)
    with pytest.raises(
        UserError, match="after 30 steps, and its newest are now those after 45"
    ):
        run(settings)


def test_a_run_starts_from_no_other_model_and_no_empty_folder(trained, tmp_path):
    settings = trained | {"run_dir": str(tmp_path / "new")}
    for start, changes, message in (
        (
            trained["run_dir"],
            {"activation": "tanh"},
            "--activation .the run: relu, now",
        ),
        (
            "nowhere",
            {},
            f"--start_from={Path('nowhere').absolute()}: expected the folder of a "
            "trained run",
        ),
    ):
        with pytest.raises(UserError, match=message):
            run(settings | {"start_from": start} | changes)
        assert not Path(settings["run_dir"]).exists()


@pytest.mark.usefixtures("unreported")
def test_what_is_no_longer_promised_or_there_is_said(trained, capsys):
    folder = Path(trained["run_dir"])
    recorded = config.read(folder)
    recorded["versions"] |= {"tensorflow": "2.0.0", "program": "0123456789ab"}
    config.write(folder, recorded)
    history = folder / "metrics.jsonl"
    history.write_text(history.read_text()[:-9])
    run(trained, epochs=3, learning_rate=0.002)
    output = capsys.readouterr().out
    assert "begun with TensorFlow 2.0.0: with" in output
    assert "begun with the program 0123456789ab: with" in output
    assert "From here on, --learning_rate was 0.001 and is 0.002." in output
    assert "metrics.jsonl holds 1 of the 2 epochs' records" in output
    assert [record["epoch"] for record in timeless(folder)] == [1, 3]


@pytest.mark.parametrize("mode", ["train", "evaluate", "generate"])
def test_a_run_that_names_no_program_is_of_another(trained, capsys, mode):
    """One that was begun before programs were named."""
    folder = Path(trained["run_dir"])
    recorded = config.read(folder)
    del recorded["versions"]["program"], recorded["versions"]["commit"]
    del recorded["dataset"]["classes"]
    config.write(folder, recorded)
    flags = trained if mode == "train" else {"run_dir": trained["run_dir"]}
    run(flags, mode=mode)
    assert "equal bits are promised for the same" in capsys.readouterr().out


@pytest.mark.usefixtures("unreported")
def test_a_changed_digit_of_the_metrics_is_seen(trained, capsys):
    history = Path(trained["run_dir"], "metrics.jsonl")
    content = history.read_text()
    at = content.index("train_loss") + 14
    digit = str((int(content[at]) + 1) % 10)
    history.write_text(content[:at] + digit + content[at + 1 :])
    run(trained, epochs=3)
    assert "metrics.jsonl was changed or damaged" in capsys.readouterr().out


def test_a_changed_key_of_the_metrics_is_refused(trained):
    history = Path(trained["run_dir"], "metrics.jsonl")
    history.write_text(history.read_text().replace("seconds", "secnnds", 1))
    with pytest.raises(UserError, match="line 1 is damaged"):
        run(trained)


@pytest.mark.skipif(numerics.GPU, reason="there an epoch is one block")
def test_one_compilation_serves_the_whole_training(small, tmp_path):
    """However blocks begin and end; and neither TensorFlow nor XLA says a word."""
    loss_settings = Objective(num_samples=150)
    block_steps = batches.noise_shape(build(Model()), loss_settings, 20, 15)[0]
    assert 1 < block_steps < 15 and 15 % block_steps  # the last block is shorter
    process = program(
        *as_arguments(small | {"jit": True, "num_samples": 150}),
        env={"XLA_FLAGS": f"--xla_dump_to={tmp_path}/xla"},
    )
    output, errors = process.communicate(timeout=120)
    assert errors == "" and "Test -ELBO" in output
    blocks = list((tmp_path / "xla").glob("*train_block*before_optimizations.txt"))
    assert len(blocks) == 1


def test_a_folder_in_use_is_refused(trained):
    with files.lock(Path(trained["run_dir"])):
        for mode in ("train", "evaluate", "generate"):
            with pytest.raises(UserError, match=r"in use by process \d+"):
                run(trained, mode=mode)


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_that_was_begun_meanwhile_is_left_alone(
    small, two_epochs, monkeypatch, ended
):
    """Two start on a new folder; the one that loads its data faster has it."""
    load, folder = datasets.load, Path(small["run_dir"])
    with contextlib.ExitStack() as other:

        def overtaken(*arguments):
            shutil.copytree(two_epochs, folder)
            if not ended:
                other.enter_context(files.lock(folder))
            return load(*arguments)

        monkeypatch.setattr(datasets, "load", overtaken)
        with pytest.raises(UserError, match="began a run there" if ended else "in use"):
            run(small)
    assert_same_run(folder, two_epochs)
