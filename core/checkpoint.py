"""Save and strictly restore a `TrainState`, and the config that made it."""

import json
import os
from pathlib import Path

import tensorflow as tf

CONFIG = "config.json"


def make_manager(state, folder: Path, keep: int) -> tf.train.CheckpointManager:
    """Checkpoints of `state` (a NamedTuple) as `ckpt-<step>`, the newest `keep`."""
    checkpoint = tf.train.Checkpoint(**state._asdict())
    return tf.train.CheckpointManager(
        checkpoint, str(folder), max_to_keep=keep, checkpoint_name="ckpt"
    )


def save(manager, step: int) -> None:
    """Save as `ckpt-<step>`, unless that is what was saved or restored last."""
    if latest_step(manager) != step:
        manager.save(checkpoint_number=step)


def latest_step(manager) -> int | None:
    """The step of the newest checkpoint; None without one."""
    path = manager.latest_checkpoint
    return int(path.rsplit("-", 1)[1]) if path else None


def restore(manager) -> None:
    """Load the newest checkpoint: every variable from it, and nothing left over.

    Raises:
      ValueError: it is damaged, or of another model.
    """
    path = manager.latest_checkpoint
    try:
        status = manager.checkpoint.restore(path)
        status.assert_consumed()
    except (tf.errors.OpError, AssertionError, LookupError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path}: cannot be restored ({reason}); move this checkpoint away to go "
            "on from an older one, or choose another --run_dir"
        ) from error


def write_config(folder: Path, config: dict) -> None:
    """Write config.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{CONFIG}.partial"
    partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / CONFIG)


def read_config(folder: Path) -> dict | None:
    """What config.json holds; None without one.

    Raises:
      ValueError: it cannot be read.
    """
    path = folder / CONFIG
    if not path.exists():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if {"flags", "dataset", "versions"} <= config.keys():
            return config
        raise ValueError("a key is missing")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected the config of a run, but {error}; choose another "
            "--run_dir, or put the file back"
        ) from error
