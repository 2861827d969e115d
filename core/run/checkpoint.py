"""Save and strictly restore a `TrainState`.

A checkpoint is TensorFlow's files and, written last, `ckpt-<step>.json` with their
SHA-256: what lacks it or differs from it was cut short or damaged, and is passed over.
"""

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path

import tensorflow as tf

from core.errors import UserError
from core.run import files

METRICS = "metrics.jsonl"
TF_LIST = "checkpoint"  # for `tf.train.latest_checkpoint`; nothing here reads it
PART = re.compile(r"ckpt-(\d+)\.(index|data-\d+-of-\d+|json)")
PARTIAL = ("*.json.partial", "metrics.jsonl.partial", "checkpoint.partial")
PARTIAL += ("figures/*.partial", "figures/*/*.partial")


# --- Weights, moments, step -----------------------------------------------------------


def make_saver(state) -> tf.train.Checkpoint:
    """What writes and reads a `state` (a NamedTuple)."""
    saver = tf.train.Checkpoint(**state._asdict())
    int(saver.save_counter)  # part of every checkpoint; made when it is asked for
    return saver


def save(saver, folder: Path, step: int, keep: int, seconds: float) -> None:
    """Save as `ckpt-<step>`, unless that is there whole; on disk when this returns.

    `seconds` of training in the current epoch are kept beside it. Of the whole ones the
    newest `keep` stay; the others go only after it is sealed.

    Raises:
      OSError: it cannot be written; the checkpoints before it are untouched.
    """
    if _damage(folder, step) is not None:
        _write(saver, folder, step, seconds)
    _keep_newest(folder, step, keep)


def _write(saver, folder: Path, step: int, seconds: float) -> None:
    try:
        saver.write(f"{folder}/ckpt-{step}")
    except tf.errors.OpError as error:
        reason = error.message.split("} ")[-1].split("\n")[0]
        numbers = (n for n in errno.errorcode if reason.endswith(os.strerror(n)))
        raise OSError(
            next(numbers, errno.EIO), f"ckpt-{step} cannot be written ({reason})"
        ) from error
    parts = [path for path in _parts(folder)[step] if path.suffix != ".json"]
    for path in parts:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    digests = {path.name: files.sha256(path) for path in parts}
    seal = {"files": digests, "metrics": files.sha256(folder / METRICS)}
    files.write_json(folder / f"ckpt-{step}.json", seal | {"seconds": seconds})


def _keep_newest(folder: Path, step: int, keep: int) -> None:
    """List the newest `keep` whole checkpoints up to `step`, and delete all others:
    older ones, and later ones, which were passed over as damaged."""
    found = _parts(folder)
    whole = [n for n in sorted(found) if (folder / f"ckpt-{n}.json").exists()]
    kept = [n for n in whole if n <= step][-keep:]
    lines = [f'model_checkpoint_path: "ckpt-{step}"\n']
    lines += [f'all_model_checkpoint_paths: "ckpt-{n}"\n' for n in kept]
    files.write_whole(folder / TF_LIST, "".join(lines).encode())
    for number, paths in found.items():
        if number not in kept:
            for path in paths:
                path.unlink()


def restore(saver, folder: Path) -> tuple[int | None, list[str]]:
    """Load the newest whole checkpoint: every variable, and nothing left over.

    Returns its step, and a line about each newer one that was passed over. The step
    is None where there is none, or a damaged one of step 0 alone.

    Raises:
      UserError: all are damaged, or it is a checkpoint of another model.
    """
    step, skipped = newest(folder)
    if step is not None:
        with _refusing_others(folder, step):
            saver.restore(f"{folder}/ckpt-{step}").assert_consumed()
    return step, skipped


def start_from(folder: Path, state) -> tuple[int, list[str]]:
    """Load another run's newest weights into `state`, and nothing else of it: the
    average of its weights where it keeps one. Returns its step, and notes as `restore`.

    Raises:
      UserError: there are none that can be used, or they are of another model.
    """
    step, skipped = newest(folder)
    if step is None:
        raise UserError(f"{folder}: expected a run to start from, got no checkpoint")
    path = f"{folder}/ckpt-{step}"
    with _refusing_others(folder, step):
        names = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        averaged = any(name.startswith("average/") for name in names)
        source = "average" if averaged else "params"
        there = sum(name.startswith(f"{source}/") for name in names)
        if there != len(tf.nest.flatten(state.params)):
            raise LookupError(f"it has {there} variables")
        for weights in filter(None, (state.params, state.average)):
            status = tf.train.Checkpoint(**{source: weights}).restore(path)
            status.assert_existing_objects_matched().expect_partial()
    return step, skipped


def newest(folder: Path) -> tuple[int | None, list[str]]:
    """The step of the newest whole checkpoint, and why newer ones were passed over.

    Without one that is whole a run begins anew, if it had taken no step.
    """
    skipped = []
    for step in steps_on_disk(folder):
        reason = _damage(folder, step)
        if not reason:
            return step, skipped
        skipped.append(f"Passed over {folder}/ckpt-{step}: {reason}.")
    if skipped and steps_on_disk(folder) != [0]:
        raise UserError(
            f"no checkpoint can be used. {' '.join(skipped)} Put one back, or choose "
            "another folder"
        )
    return None, skipped


@contextlib.contextmanager
def _refusing_others(folder: Path, step: int):
    """TensorFlow's errors about variables that do not fit, as one that says so."""
    try:
        yield
    except (tf.errors.OpError, AssertionError, LookupError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{folder}/ckpt-{step} cannot be restored ({reason}): it is of another "
            "model; choose another folder"
        ) from error


def steps_on_disk(folder: Path) -> list[int]:
    """The steps of which there is any part of a checkpoint, newest first."""
    return sorted(_parts(folder), reverse=True)


def _parts(folder: Path) -> dict[int, list[Path]]:
    """The files of each step's checkpoint. A user's ckpt-20.tar.gz is none of them."""
    found = {}
    for path in sorted(folder.glob("ckpt-*")):
        if part := PART.fullmatch(path.name):
            found.setdefault(int(part[1]), []).append(path)
    return found


def _damage(folder: Path, step: int) -> str | None:
    """What is wrong with a checkpoint; None if it is whole."""
    seal = folder / f"ckpt-{step}.json"
    if not seal.exists():
        return f"{seal.name} is missing: it was cut short, or copied without"
    try:
        digests = files.read_json(seal)["files"]
        for name, digest in digests.items():
            if not (folder / name).exists():
                return f"{name} is missing"
            if files.sha256(folder / name) != digest:
                return f"the SHA-256 of {name} is wrong"
        return None if digests else f"{seal.name} is damaged"
    except OSError as error:
        return str(error)
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{seal.name} is damaged"


def read_seal(folder: Path, step: int) -> dict:
    """What stands beside a whole checkpoint: digests of its "files" and of "metrics"
    as they were then, and the "seconds" of its epoch."""
    return files.read_json(folder / f"ckpt-{step}.json")


def clean(folder: Path) -> None:
    """Remove what a killed process was in the middle of writing."""
    for path in folder.glob("ckpt-*_temp"):
        shutil.rmtree(path, ignore_errors=True)
    for pattern in PARTIAL:
        for path in folder.glob(pattern):
            path.unlink()
