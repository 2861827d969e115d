"""A run's folder: what is in it, who has it, what is refused, how it is made ready."""

import contextlib
import dataclasses
import platform
from pathlib import Path

import numpy as np
import tensorflow as tf

from core import settings as settings_of
from core.data import download
from core.errors import UserError
from core.run import checkpoint, config, files, metrics, process, start
from core.run.process import say


class NoFolder:
    """A run that is kept nowhere but in memory, as in a notebook."""

    path, seconds = "in memory", 0.0

    def add_epoch(self, record: dict) -> None:
        """Keep no record."""

    def save(self, step: int, seconds: float) -> None:
        """Keep no checkpoint."""

    def how_to_go_on(self, *changed: str) -> str:
        """What to do after a stop or a failure."""
        return "Train again" + " with " * bool(changed) + " ".join(changed)


class RunFolder(contextlib.ExitStack):
    """The folder of a run, which this process has to itself while it is open."""

    def __init__(self, settings):
        """Open the folder of `settings.Run`; nothing is written yet."""
        super().__init__()
        self.path, self._settings = Path(settings.run_dir), settings
        self.seconds = 0.0  # of training in the epoch that the checkpoint is in
        self._saver = self._state = self._restored = self._scalars = None
        self.past, self.start = None, {}
        refuse(settings)  # before the lock makes a file in a folder that is no run's
        self._locked = self.path.exists()
        with contextlib.ExitStack() as held:
            if self._locked:
                held.enter_context(files.lock(self.path))
                refuse(settings)  # another process may have changed it in between
            self.recorded = config.read(self.path)
            if self.recorded:
                flags = self.recorded["flags"]
                self.past = settings_of.from_record(flags, settings.run_dir)
                self.start = self.recorded["start"]  # whose weights it began with
            self.push(held.pop_all())

    # --- Before training ---

    def expect_start(self, model_settings) -> None:
        """Raise UserError if a new run is to start from another that does not fit."""
        if self._settings.start_from and not self.recorded:
            start.expect_same_model(self._settings.start_from, model_settings)

    def data_settings(self, settings):
        """`settings.Data`, where "auto" is what the run was begun with."""
        if settings.dataset != "auto" or not self.recorded:
            return settings
        name = self.recorded["dataset"]["name"]
        known = name in (*download.SOURCES, "synthetic")
        return dataclasses.replace(settings, dataset=name) if known else settings

    def expect_data(self, record: dict) -> None:
        """Raise UserError if the run was begun on other data than `Data.record`."""
        if self.recorded and record["sha256"] != self.recorded["dataset"]["sha256"]:
            raise UserError(
                f"{self.path} holds a run on other data "
                f"({self.recorded['dataset']['name']}, not this {record['name']}): use "
                "that data, or choose another --run_dir"
            )

    def restore(self, state) -> None:
        """Load the newest whole checkpoint, if there is one, and say what is not as it
        was."""
        self._saver, self._state = checkpoint.make_saver(state), state
        if not self.recorded:
            return
        self._restored, notes = checkpoint.restore(self._saver, self.path)
        if self._restored is not None:
            self.seconds = checkpoint.read_seal(self.path, self._restored)["seconds"]
        made_with = self.recorded["versions"]["tensorflow"]
        if self._restored is not None and made_with != tf.__version__:
            notes.append(
                f"This run was begun with TensorFlow {made_with}: under "
                f"{tf.__version__} it goes on, but not in the same bits."
            )
        for note in notes:
            say(note)

    def begin(self, flags: dict, data_record: dict) -> None:
        """Make the folder ready for the steps that follow those of the state, with the
        values of all settings."""
        path, steps = self.path, self.step
        self._lock_new()
        checkpoint.clean(path)
        kept = None if self._restored is None else self.recorded
        record = {
            "flags": flags,
            "versions": kept["versions"] if kept else current_versions(),
            "dataset": data_record,
            "start": kept["start"] if kept else self._start(flags["start_from"]),
        }
        self.recorded, self.start = record, record["start"]
        self._keep_metrics(steps)
        config.write(path, record)
        self.save(steps, self.seconds)

    def _lock_new(self) -> None:
        if self._locked:
            return
        self.enter_context(files.lock(self.path))
        if config.read(self.path):
            raise UserError(
                f"{self.path}: another process began a run there meanwhile; choose "
                "another --run_dir"
            )

    def _keep_metrics(self, steps: int) -> None:
        kept = metrics.keep_until(self.metrics, steps)
        if kept < self.epoch:
            say(f"{self.metrics} holds {kept} of the {self.epoch} epochs' records.")
        elif steps:
            sealed = checkpoint.read_seal(self.path, steps).get("metrics")
            if sealed != files.sha256(self.metrics):
                say(f"{self.metrics} was changed or damaged: its numbers may be wrong.")

    def _start(self, other: str) -> dict:
        """Load the weights of --start_from, if it is given; what is kept of it."""
        if not other:
            return {}
        before = self.recorded["start"]["start_step"] if self.recorded else None
        found, notes = start.load(other, self._state, before)
        for note in notes:
            say(note)
        return found

    # --- While it trains ---

    def save(self, step: int, seconds: float) -> None:
        """A checkpoint of the state that `restore` was given, after `step` steps."""
        keep = self._settings.keep_checkpoints
        checkpoint.save(self._saver, self.path, step, keep, seconds)

    def add_epoch(self, record: dict) -> None:
        """Add a line to metrics.jsonl, and TensorBoard's scalars."""
        self._add(self.metrics, "epoch", record)

    def add_evaluation(self, record: dict) -> None:
        """Add a line to evaluations.jsonl, and TensorBoard's scalars."""
        self._add(self.path / "evaluations.jsonl", record["split"], record)

    def _add(self, path: Path, prefix: str, record: dict) -> None:
        metrics.append(path, record)
        self._scalars = self._scalars or metrics.make_scalar_writer(self.path)
        self._scalars(record["step"], prefix, record)

    def how_to_go_on(self, *changed: str) -> str:
        """What to do after a stop or a failure."""
        saved, _ = checkpoint.newest(self.path)
        again = process.command(self._settings.resume, *changed)
        return f"The checkpoint of step {saved} is kept; go on from it with: {again}"

    # --- What it holds ---

    @property
    def step(self) -> int:
        """How many steps the state has taken."""
        return int(self._state.step)

    @property
    def epoch(self) -> int:
        """How many epochs the state has been trained for."""
        images = self.recorded["dataset"]["train_images"]
        return self.step // (images // self.recorded["flags"]["batch_size"])

    @property
    def metrics(self) -> Path:
        """Where the records of epochs are."""
        return self.path / "metrics.jsonl"

    def history(self, fields) -> list[dict]:
        """The records of the epochs up to the state's step. A killed run may have got
        further."""
        found = metrics.read(self.metrics, fields)
        return [epoch for epoch in found if epoch["step"] <= self.step]


def refuse(settings) -> None:
    """Raise UserError if what is in the run folder is not what was asked for."""
    folder, training = Path(settings.run_dir), settings.mode == "train"
    saved = checkpoint.steps_on_disk(folder)
    if not saved and metrics.read(folder / "metrics.jsonl"):
        raise UserError(
            f"{folder} holds the metrics of a run but none of its checkpoints: put "
            "them back, or choose another --run_dir"
        )
    if not saved and (not training or settings.resume == "required"):
        raise UserError(
            f"{folder}: expected a run to go on from, got no checkpoint; train one "
            f"with python loop.py --run_dir={folder}"
        )
    if saved and training and settings.resume == "never":
        raise UserError(
            f"{folder} already holds a run, of {saved[0]} steps, and --resume=never "
            "does not overwrite it: choose another --run_dir"
        )


def current_versions() -> dict:
    """What a run's bits depend on."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
