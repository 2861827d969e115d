"""--start_from: a new run that begins with the weights of another."""

import contextlib
import dataclasses
from pathlib import Path

from core import consistency
from core import settings as settings_of
from core.errors import UserError
from core.run import checkpoint, config


def expect_same_model(folder: str, model_settings) -> None:
    """Raise UserError if `folder` is no trained run of the model of these settings."""
    with _naming(folder):
        recorded = config.read(Path(folder))
        if not recorded or not checkpoint.steps_on_disk(Path(folder)):
            raise UserError(
                "expected the folder of a trained run of the same model; train one "
                "there first, with the same "
                + " ".join(f"--{name}" for name in settings_of.OF_MODEL)
            )
        past = settings_of.from_record(recorded["flags"], folder).model
        here, there = map(dataclasses.asdict, (model_settings, past))
        consistency.refuse_others(settings_of.OF_MODEL, there, here, folder)


def load(folder: str, state, before: int | None) -> tuple[dict, list[str]]:
    """Load the weights of another run into `state` -> what config.json keeps of it, and
    what there is to say.

    A run that was killed before its first checkpoint starts again with the same: those
    after `before` steps.
    """
    with _naming(folder):
        newest, notes = checkpoint.start_from(Path(folder), state)
        if before not in (None, newest):
            raise UserError(
                f"this run began with its weights after {before} steps, and its newest "
                f"are now those after {newest}: choose another --run_dir"
            )
    notes = [*notes, f"Weights: those of {folder} after {newest:,} steps"]
    return {"start_from": folder, "start_step": newest}, notes


@contextlib.contextmanager
def _naming(folder: str):
    """Begin the text of an error with --start_from=FOLDER."""
    try:
        yield
    except (UserError, OSError) as error:
        raise UserError(f"--start_from={folder}: {error}") from error
