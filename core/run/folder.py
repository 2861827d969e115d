"""A run's folder: what is in it, who has it, what is refused, how it is made ready."""

import contextlib
import dataclasses
from pathlib import Path

import numpy as np

from core import settings as settings_of
from core.data import download
from core.errors import UserError
from core.progress import say
from core.run import checkpoint, config, files, metrics, process, program, start


class NoFolder:
    """A run that is kept nowhere but in memory, as in a notebook, or whose folder is
    another process's."""

    path, seconds, past, frames = "in memory", 0.0, None, None

    def leave(self, given, *more):
        """What is given, as it is: nothing is read, refused or kept."""
        return given

    data_settings = expect_start = expect_data = restore = begin = leave
    add_epoch = save = leave

    def expect_there(self) -> None:
        """It cannot be lost."""

    def how_to_go_on(self, *changed: str) -> str:
        """What to do after a stop or a failure."""
        return "Train again" + " with " * bool(changed) + " ".join(changed)


class RunFolder(contextlib.ExitStack):
    """The folder of a run, which this process has to itself while it is open."""

    def __init__(self, settings, locks=True):
        """Open the folder of `settings.Run`; nothing is written yet. To read needs no
        lock."""
        super().__init__()
        self.path, self._settings = Path(settings.run_dir), settings
        self.metrics = self.path / checkpoint.METRICS  # the records of epochs
        self.frames = self.path / "film"
        self.past, self.seconds = None, 0.0  # of training in the checkpoint's epoch
        self.known = None  # the images' numbers that all processes have just computed
        self._saver = self._state = self._saved = self._events = None
        self._config = None  # flags and data that are still to be written
        self.recorded = config.expect_own(
            settings
        )  # before a lock is put into another's
        self._locked = locks and self.path.exists()
        with contextlib.ExitStack() as held:
            if self._locked:
                held.enter_context(files.lock(self.path, settings.mode == "train"))
                self.recorded = config.expect_own(
                    settings
                )  # it may be another's by now
            if self.recorded:
                flags = self.recorded["flags"]
                self.past = settings_of.from_record(flags, settings.run_dir)
            self.push(held.pop_all())
        self._there = self._identity()

    # --- Before training ---

    def expect_start(self, model_settings) -> None:
        """Raise UserError if a new run is to start from another that does not fit."""
        if self._settings.start_from and not self.recorded:
            start.expect_same_model(self._settings.start_from, model_settings)

    def data_settings(self, settings):
        """`settings.Data`, where "auto" is what the run was begun with."""
        name = self.recorded["dataset"]["name"] if self.recorded else ""
        if settings.dataset == "auto" and name in (*download.SOURCES, "synthetic"):
            return dataclasses.replace(settings, dataset=name)
        return settings

    def expect_data(self, record: dict) -> None:
        """Raise UserError if the run was begun on other data than `Data.record`."""
        past = self.recorded["dataset"] if self.recorded else record
        if record["sha256"] != past["sha256"]:
            raise UserError(
                f"{self.path} holds a run on other data ({past['name']}, not this "
                f"{record['name']}): use that data, or choose another --run_dir"
            )

    def restore(self, state) -> None:
        """Load the newest whole checkpoint, if there is one; say what has changed."""
        self._saver, self._state = checkpoint.make_saver(state), state
        if self.recorded:
            self._saved = checkpoint.restore(self._saver, self.path)
        if self._saved is not None:
            self.seconds = checkpoint.read_seal(self.path, self._saved)["seconds"]
            for remark in program.remarks(self.recorded["versions"]):
                say(remark)
        if self.recorded:
            self.expect_there()

    def begin(self, flags: dict, data_record: dict, changes: list[str]) -> None:
        """Make the folder ready for the steps that follow those of the state, with the
        values of all settings, of which the `changes` are said.

        UserError: no step is left, so that nothing can be changed.
        """
        if not self._locked:
            self.enter_context(files.lock(self.path))
            self._there = self._identity()
            if config.read(self.path):
                raise UserError(
                    f"{self.path}: another process began a run there meanwhile; choose "
                    "another --run_dir"
                )
        self.expect_there()
        if not self.recorded or self.epoch < flags["epochs"]:
            for change in changes:
                say(f"From here on, {change}.")
            checkpoint.clean(self.path)
            self._config = flags, data_record
            if self._saved is None:
                self._record()
        elif changes:
            raise UserError(
                f"{self.path} is trained for {self.epoch} epochs, and none is left in "
                f"which {changes[0]}: give more --epochs, or another --run_dir"
            )
        self._keep_metrics(self.step)
        self.save(self.step, self.seconds)  # a kill may have left it unlisted

    def _record(self) -> None:
        """Write config.json: before any file of a new run, and else with the first new
        weights, so that it tells of those that there are."""
        (flags, dataset), self._config = self._config, None
        if self._saved is None:
            versions, before = program.versions(), self.start.get("start_step")
            origin = start.load(flags["start_from"], self._state, before)
        else:
            versions = program.with_these(self.recorded["versions"])
            origin = self.start
        self.recorded = {"flags": flags, "versions": versions, "dataset": dataset}
        self.recorded["start"] = origin
        config.write(self.path, self.recorded)

    def _keep_metrics(self, step: int) -> None:
        """Drop the records after `step`; say if those before are not as they were."""
        kept = metrics.keep_until(self.metrics, step)
        if kept < self.epoch:
            say(f"{self.metrics} holds {kept} of the {self.epoch} epochs' records.")
        elif step:
            sealed = checkpoint.read_seal(self.path, step).get("metrics")
            if sealed != files.sha256(self.metrics):
                say(f"{self.metrics} was changed or damaged: its numbers may be wrong.")

    # --- While it trains ---

    def _identity(self) -> list:
        return [*map(files.identity, (self.path, self.path / files.LOCK))]

    def expect_there(self) -> None:
        """Raise UserError if what is there is not the folder that was opened."""
        whole = not self.recorded or (self.path / config.NAME).exists()
        if self._identity() != self._there or not whole:
            raise UserError(
                f"{self.path} was moved, removed, or robbed of {files.LOCK} or "
                f"{config.NAME} meanwhile: put it back, and run the same command again"
            )

    def save(self, step: int, seconds: float) -> None:
        """A checkpoint of the state that `restore` was given, after `step` steps."""
        keep = self._settings.keep_checkpoints
        self.expect_there()
        if self._config and step > self._saved:
            self._record()
        checkpoint.save(self._saver, self.path, step, keep, seconds)
        self._saved = step

    def add_epoch(self, record: dict) -> None:
        """Add a line to metrics.jsonl, and TensorBoard's scalars."""
        self._add(self.metrics, "epoch", record)

    def add_evaluation(self, record: dict) -> None:
        """Add a line to evaluations.jsonl, and TensorBoard's scalars."""
        self._add(self.path / "evaluations.jsonl", record["split"], record)

    def _add(self, path: Path, prefix: str, record: dict) -> None:
        self.expect_there()
        metrics.append(path, record)
        self._events = self._events or metrics.Events(self.path, self._saved or 0)
        self._events.add(prefix, record)

    def evaluated_before(self, fields: dict) -> dict | None:
        """The images' numbers {name: [N]} of the last evaluation that agrees in all of
        these fields."""
        if self.known:
            return self.known
        with contextlib.suppress(UserError):  # one that is damaged is no reason to end
            for record in reversed(metrics.read(self.path / "evaluations.jsonl")):
                if fields.items() <= record.items():
                    return self._images_of(record)
        return None

    def _images_of(self, record: dict) -> dict | None:
        names = "distortion", "rate", *["log_p"] * ("nll" in record)
        found = files.read_arrays(self.path / str(record.get("file"))) or {}
        whole = all(np.shape(found.get(n)) == (record.get("images"),) for n in names)
        return found if whole else None

    def how_to_go_on(self, *changed: str) -> str:
        """What to do after a stop or a failure."""
        kept = f"The checkpoint of step {self._saved} is kept"
        again = process.command(self._settings.resume, *changed)
        return f"{kept}; go on from it with: {again}"

    # --- What it holds ---

    @property
    def start(self) -> dict:
        """Whose weights the run began with; {} if its own."""
        return self.recorded["start"] if self.recorded else {}

    @property
    def weights(self) -> dict:
        """Which the state's are."""
        step = self.step
        return {"step": step, "checkpoint": checkpoint.digest(self.path, step)}

    @property
    def step(self) -> int:
        """How many steps the state has taken."""
        return int(self._state.step)

    @property
    def epoch(self) -> int:
        """How many epochs the state has been trained for."""
        images = self.recorded["dataset"]["train_images"]
        return self.step // (images // self.recorded["flags"]["batch_size"])

    def history(self, fields) -> list[dict]:
        """The epochs' records up to the state's step: a killed run may have got on."""
        found = metrics.read(self.metrics, fields)
        return [epoch for epoch in found if epoch["step"] <= self.step]
