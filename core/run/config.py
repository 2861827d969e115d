"""config.json: what a run is. Its flags, versions and data, under a SHA-256."""

import hashlib
import json
from pathlib import Path

from core.errors import UserError
from core.run import checkpoint, files

NAME = "config.json"
FORMAT = 2  # of a run's folder; those of format 1 named no format


def write(folder: Path, config: dict) -> None:
    """Write config.json with a SHA-256 of itself."""
    config = {"format": FORMAT} | config
    files.write_json(folder / NAME, config | {"sha256": _seal(config)})


def read(folder: Path) -> dict | None:
    """What config.json holds; None where there is no run.

    UserError: it is damaged, missing beside checkpoints, or of another version.
    """
    path = folder / NAME
    if not path.exists() and not checkpoint.steps_on_disk(folder):
        return None
    try:
        config = json.loads(path.read_bytes())
        if config.pop("sha256", None) != _seal(config):
            raise ValueError("it was changed or damaged")
    except (OSError, *files.NO_JSON) as error:
        raise UserError(
            f"{path}: expected the config of the run, but it cannot be read ({error}); "
            "put the file back, or choose another folder"
        ) from error
    found = config.get("format", 1)
    if found != FORMAT:
        version = "an earlier" if found == 1 else "a later"
        raise UserError(
            f"{folder} holds a run of {version} version of this program (format "
            f"{found}, not {FORMAT}): go on with that version, or choose another folder"
        )
    return config


def _seal(config: dict) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
