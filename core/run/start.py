"""--start_from: a new run that begins with the weights of another."""

import contextlib
import dataclasses
from pathlib import Path

from core import consistency
from core import settings as settings_of
from core.errors import UserError
from core.progress import say
from core.run import checkpoint, config


def expect_same_model(folder: str, model_settings) -> None:
    """Raise UserError if `folder` is no trained run of the model of these settings."""
    with _naming(folder):
        recorded = config.read(Path(folder))
        if not recorded or not checkpoint.steps_on_disk(Path(folder)):
            raise UserError(
                "expected the folder of a trained run of the same model; train one "
                f"there first, with the same --{' --'.join(settings_of.OF_MODEL)}"
            )
        past = settings_of.from_record(recorded["flags"], folder).model
        here, there = map(dataclasses.asdict, (model_settings, past))
        consistency.refuse_others(settings_of.OF_MODEL, there, here, folder)


def load(folder: str, state, before: int | None) -> dict:
    """Load another run's weights, if one is named -> what config.json keeps of it.

    A run that was killed before its first checkpoint starts again with the same: those
    after `before` steps.
    """
    if not folder:
        return {}
    with _naming(folder):
        weights = filter(None, (state.params, state.average))
        found = checkpoint.start_from(Path(folder), *weights)
        if found is None:
            raise UserError("expected a run to start from, got no checkpoint")
        if before not in (None, found):
            raise UserError(
                f"this run began with its weights after {before} steps, and its newest "
                f"are now those after {found}: choose another --run_dir"
            )
    say(f"Weights: those of {folder} after {found:,} steps")
    return {"start_from": folder, "start_step": found}


@contextlib.contextmanager
def _naming(folder: str):
    """Begin the text of an error with --start_from=FOLDER."""
    try:
        yield
    except (UserError, OSError) as error:
        raise UserError(f"--start_from={folder}: {error}") from error
