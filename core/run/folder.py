"""A run's folder: what is in it, who has it, what is refused, how it is made ready."""

import contextlib
import dataclasses
from pathlib import Path

from core import settings as settings_of
from core.data import download
from core.errors import UserError
from core.progress import say
from core.run import checkpoint, config, files, metrics, process, program, start


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
        self._saver = self._state = self._restored = self._events = None
        self.past, self.start = None, {}
        refuse(settings)  # before the lock makes a file in a folder that is no run's
        self._locked = self.path.exists()
        with contextlib.ExitStack() as held:
            if self._locked:
                writes = settings.mode == "train"
                held.enter_context(files.lock(self.path, writes))
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
            notes = [*notes, *program.remarks(self.recorded["versions"])]
        for note in notes:
            say(note)

    def begin(self, flags: dict, data_record: dict, changes: list[str]) -> None:
        """Make the folder ready for the steps that follow those of the state, with the
        values of all settings, of which the `changes` are said.

        Raises:
          UserError: no step is left, so that nothing can be changed.
        """
        path, steps = self.path, self.step
        self._lock_new()
        if self.recorded and self.epoch >= flags["epochs"]:
            if changes:
                raise UserError(
                    f"{path} is trained for {self.epoch} epochs, and none is left in "
                    f"which {changes[0]}: give more --epochs, or another --run_dir"
                )
            self._keep_metrics(steps)
            self.save(steps, self.seconds)  # a kill may have left it unlisted
            return
        for change in changes:
            say(f"From here on, {change}.")
        checkpoint.clean(path)
        kept = None if self._restored is None else self.recorded
        record = {
            "flags": flags,
            "versions": kept["versions"] if kept else program.versions(),
            "dataset": data_record,
            "start": kept["start"] if kept else self._start(flags["start_from"]),
        }
        self.recorded, self.start = record, record["start"]
        config.write(path, record)
        self._keep_metrics(steps)
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
        self._events = self._events or metrics.Events(self.path, self._restored or 0)
        self._events.add(prefix, record)

    def evaluated_before(self, fields: dict) -> dict | None:
        """The record of an evaluation that agrees in all of these fields."""
        with contextlib.suppress(UserError):  # one that is damaged is no reason to end
            for record in metrics.read(self.path / "evaluations.jsonl"):
                if fields.items() <= record.items():
                    return record
        return None

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
    refuse_foreign(folder)
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


def refuse_foreign(folder: Path) -> None:
    """Raise UserError if a folder holds what no run left: a run begins in a folder that
    is empty, not there, or its own."""
    if config.read(folder) or not folder.is_dir():
        return
    listed = sorted(path.name for path in folder.iterdir())
    there = [name for name in listed if not name.startswith((".", f"{config.NAME}."))]
    if there:
        raise UserError(
            f"{folder} holds files of something else ({', '.join(there[:3])}): choose "
            "another --run_dir, which is empty or not there"
        )
