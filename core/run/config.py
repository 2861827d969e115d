"""config.json: what a run is. Its flags, versions and data, under a SHA-256."""

import hashlib
import json
import shlex
from pathlib import Path

from core.errors import UserError
from core.run import checkpoint, files, metrics

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


def expect_own(settings) -> dict | None:
    """What config.json holds of the run that `settings.Run` asks for; None for a new
    one, in a folder that is empty or not there. UserError: there is something else."""
    folder, training = Path(settings.run_dir), settings.mode == "train"
    recorded, saved = read(folder), checkpoint.steps_on_disk(folder)
    others, reason = [], ""
    if not recorded and folder.is_dir():
        names = sorted(path.name for path in folder.iterdir())
        others = [n for n in names if not n.startswith((".", f"{NAME}."))]
    if others:
        reason = f"holds files of something else ({', '.join(others[:3])}):"
    elif saved and training and settings.resume == "never":
        reason = f"holds a run, of {saved[0]} steps, and --resume=never does not "
        reason += "overwrite it:"
    elif not saved and metrics.read(folder / checkpoint.METRICS):
        reason = "holds the metrics of a run but none of its checkpoints: put them "
        reason += "back, or"
    elif not saved and (not training or settings.resume == "required"):
        reason = "has no checkpoint: expected a run to go on from; train one with "
        reason += f"python loop.py {shlex.quote(f'--run_dir={folder}')}, or"
    if reason:
        raise UserError(f"{folder} {reason} choose another --run_dir")
    return recorded


def _seal(config: dict) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
