"""Save and strictly restore a `TrainState`.

A checkpoint is TensorFlow's files and, written last, `ckpt-<step>.json` with their
SHA-256: what lacks it or differs from it was cut short or damaged, and is passed over.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path

import tensorflow as tf

from core.errors import UserError
from core.progress import say
from core.run import files

METRICS = "metrics.jsonl"
TF_LIST = "checkpoint"  # for `tf.train.latest_checkpoint`; nothing here reads it
LATER = "passed_over"  # _1, _2 ...: folders of checkpoints of later steps
PART = re.compile(r"ckpt-(\d+)\.(index|data-\d+-of-\d+|json)")
PARTIAL = ("config.json.partial", f"{METRICS}.partial", f"{TF_LIST}.partial")
PARTIAL += (
    "ckpt-[0-9]*.json.partial",
    "figures/*.partial",
    "figures/*/*.partial",
    "evaluations/*.partial",
)
PARTIAL += ("film/*.partial", "latents/*.partial")


def make_saver(state) -> tf.train.Checkpoint:
    """What writes and reads a `state` (a NamedTuple)."""
    saver = tf.train.Checkpoint(**state._asdict())
    int(saver.save_counter)  # part of every checkpoint; made when it is asked for
    return saver


def save(saver, folder: Path, step: int, keep: int, seconds: float) -> None:
    """Save as `ckpt-<step>`, unless that is there whole; on disk when this returns.

    `seconds` of training in the current epoch are kept beside it. The newest `keep`
    stay; older ones go only after it is sealed. OSError: it cannot be written.
    """
    if _damage(folder, step):
        _write(saver, folder, step, seconds)
    _keep_newest(folder, step, keep)


def _write(saver, folder: Path, step: int, seconds: float) -> None:
    with files.by_tensorflow(f"ckpt-{step}"):
        saver.write(f"{folder}/ckpt-{step}")
    digests = {}
    for path in _parts(folder)[step]:
        if path.suffix != ".json":
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            digests[path.name] = files.sha256(path)
    seal = {"files": digests, "metrics": files.sha256(folder / METRICS)}
    files.write_json(folder / f"ckpt-{step}.json", seal | {"seconds": seconds})


def _keep_newest(folder: Path, step: int, keep: int) -> None:
    """List the newest `keep` up to `step`; delete older ones, and put later ones, such
    as were passed over, where no save will write: one may be a copy without a seal."""
    found = _parts(folder)
    sealed = [n for n in sorted(found) if (folder / f"ckpt-{n}.json").exists()]
    kept = [n for n in sealed if n <= step][-keep:]
    lines = [f'model_checkpoint_path: "ckpt-{step}"\n']
    lines += [f'all_model_checkpoint_paths: "ckpt-{n}"\n' for n in kept]
    files.write_whole(folder / TF_LIST, "".join(lines).encode())
    places = (folder / f"{LATER}_{i}" for i in itertools.count(1))
    aside = next(place for place in places if not place.exists())
    for number in sorted(found.keys() - kept):
        if number > step:
            aside.mkdir(exist_ok=True)
            say(f"{folder}/ckpt-{number}, of a later step, is kept in {aside}.")
        for path in found[number]:
            path.replace(aside / path.name) if number > step else path.unlink()


def restore(saver, folder: Path) -> int | None:
    """Load the newest whole checkpoint, every variable, and nothing left over -> its
    step, as `newest`. UserError: as there, or it is of another model."""
    return _load(folder, lambda path: saver.restore(path).assert_consumed())


def start_from(folder: Path, *copies) -> int | None:
    """As `restore`, but only weights, the average where there is one, into `copies`."""

    def read(path):
        names = [name for name, _ in tf.train.list_variables(path)]
        averaged = any(name.startswith("average/") for name in names)
        for weights in copies:
            part = {"average" if averaged else "params": weights}
            status = tf.train.Checkpoint(**part).restore(path)
            status.assert_existing_objects_matched().expect_partial()

    return _load(folder, read)


def _load(folder: Path, read) -> int | None:
    """`read` the newest, whose path it takes, and say which were passed over."""
    step, notes = newest(folder)
    try:
        if step is not None:
            read(f"{folder}/ckpt-{step}")
    except (tf.errors.OpError, AssertionError, LookupError, ValueError) as error:
        if _damage(folder, step):  # by now: who trains there has removed it
            return _load(folder, read)
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{folder}/ckpt-{step} cannot be restored ({reason}): it is of another "
            "model; choose another folder"
        ) from error
    for note in notes:
        say(note)
    return step


def newest(folder: Path) -> tuple[int | None, list[str]]:
    """The step of the newest whole checkpoint, and why newer ones were passed over.

    None where there is none, or a damaged one of step 0 alone: then a run begins anew.
    UserError: all are damaged.
    """
    notes, steps = [], steps_on_disk(folder)
    for step in steps:
        damage = _damage(folder, step)
        if not damage:
            return step, notes
        notes.append(f"Passed over {folder}/ckpt-{step}: {damage}.")
    if any(steps):
        if steps_on_disk(folder) != steps:  # by now, by who trains there
            return newest(folder)
        raise UserError(
            f"no checkpoint can be used. {' '.join(notes)} Put one back, or choose "
            "another folder"
        )
    return None, notes


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


def read_seal(folder: Path, step: int) -> dict:
    """{"files": their digests, "metrics": its digest then, "seconds": of its epoch}."""
    return json.loads((folder / f"ckpt-{step}.json").read_bytes())


def digest(folder: Path, step: int) -> str:
    """What tells the weights of a step from others that the run had there, if a damaged
    checkpoint made it take the step again in another way."""
    found = json.dumps(read_seal(folder, step)["files"], sort_keys=True)
    return hashlib.sha256(found.encode()).hexdigest()[:12]


def _damage(folder: Path, step: int) -> str:
    """What is wrong with a checkpoint; "" if it is whole. OSError: it is there, and
    cannot be read; it may be whole."""
    seal = f"ckpt-{step}.json"
    try:
        sealed = read_seal(folder, step)
        digests, _ = sealed["files"] or {seal: ""}, float(sealed["seconds"])
        differ = [n for n in digests if files.sha256(folder / n) != digests[n]]
    except (FileNotFoundError, NotADirectoryError, *files.NO_JSON):
        differ = [seal]
    if not differ:
        return ""
    return f"{differ[0]} is missing or damaged: it was cut short, or copied without it"


def clean(folder: Path) -> None:
    """Remove what a killed process was in the middle of writing."""
    for path in folder.glob("ckpt-[0-9]*_temp"):
        shutil.rmtree(path, ignore_errors=True)
    for pattern in PARTIAL:
        for path in folder.glob(pattern):
            path.unlink()
