"""--mode=compare: evaluations of several runs in one table and one picture."""

import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core import settings as settings_of
from core.consistency import MAY_CHANGE, differences
from core.errors import UserError
from core.evaluation.record import mean_and_error
from core.progress import say
from core.run import checkpoint, files, metrics
from core.run.folder import RunFolder
from core.show import figures

SHAPING = {*settings_of.OF_RUN, *MAY_CHANGE, "step", "program"}  # a run's weights
SHAPING -= {"seed", "jit", "eager"}


class Entry(NamedTuple):
    """A run, and one evaluation of it."""

    name: str  # its folder
    made: dict  # its flags, and what else its numbers depend on
    losses: dict[str, np.ndarray]  # {"-ELBO": [N], ...} of each image, in nats


def compare(settings) -> None:
    """Print what the runs of `settings.Show` reach, and write it, as Markdown and
    as a picture, to the folder of the first. UserError: they cannot be compared."""
    names, asked = settings.show.runs.split(","), settings.evaluation
    seed, kind = settings.run.seed, asked.evaluation_split
    folders = {Path(name).expanduser().resolve() for name in names}
    if len(folders) < max(2, len(names)):
        raise UserError(
            "--runs: expected folders, two or more, each once, joined by commas"
        )
    found = [entry(name, asked, seed) for name in names]
    expect_comparable(found, asked, seed)
    models, count = by_model(found), len(found[0].losses["rate"])
    text = f"{count:,} {kind} images, with pixels of seed {seed}; nats an image:\n\n"
    say(text + table(models))
    folder = Path(found[0].name, "comparison")
    files.write_whole(folder / "table.md", (text + table(models)).encode())
    loss = [*found[0].losses][-1 if asked.importance_samples else 0]
    drawn = {model[0].name: reached(model, models[0], loss) for model in models}
    figures.comparison(folder / "plot.png", loss, drawn)
    say(f"All is in     {folder}/")


def entry(name: str, asked, seed: int) -> Entry:
    """A run, with the losses of its newest weights that `settings.Evaluation` asks for,
    on pixels drawn by `seed`; {} if they were not evaluated so."""
    with RunFolder(settings_of.Run(mode="evaluate", run_dir=name)) as folder:
        metrics.read(folder.path / "evaluations.jsonl")  # says if it is damaged
        kept, (step, _) = folder.recorded, checkpoint.newest(folder.path)
        made = settings_of.values_of(folder.past) | kept["dataset"]
        there = made[f"{asked.evaluation_split}_images"]
        images = min(asked.evaluation_images or there, there)
        wanted = {"split": asked.evaluation_split, "images": images, "seed": seed}
        if asked.importance_samples:
            wanted |= {n: vars(asked)[n] for n in ("importance_samples", "bfloat16")}
        wanted["step"] = step
        if step is not None:
            wanted["checkpoint"] = checkpoint.digest(folder.path, step)
        images = folder.evaluated_before(wanted)
    made |= {"step": step, "program": kept["versions"]["program"]}
    made["data"] = f"{made['name']} {made['sha256'][:8]}"
    return Entry(str(folder.path), made, _losses(images, made, asked) if images else {})


def _losses(images: dict, made: dict, asked) -> dict:
    distortion, rate = (images[name].astype(float) for name in ("distortion", "rate"))
    bound = "loss" if made["binarization"] == "none" else "-ELBO"
    losses = {bound: distortion + rate, "distortion": distortion, "rate": rate}
    if asked.importance_samples:
        losses["-log p(x)"] = -images["log_p"]
    return losses


def expect_comparable(found: list[Entry], asked, seed: int) -> None:
    """Raise UserError if runs are of different data, or if one was not evaluated as
    asked; then the line has the command that does it."""
    first, flags = found[0], vars(asked)
    subject = "data", "binarization", "conditional", f"{asked.evaluation_split}_images"
    for other in found[1:]:
        form = f"{first.name} and {other.name} differ: {{}} is {{}} and {{}}"
        for reason in differences(form, subject, first.made, other.made):
            raise UserError(f"{reason}, which cannot be compared: leave one out")
    command = ["python", "loop.py", "--mode=evaluate", "--nofigures", f"--seed={seed}"]
    command += differences("--{0}={2}", flags, vars(type(asked)()), flags)
    if lacking := [each.name for each in found if not each.losses]:
        commands = [shlex.join([*command, f"--run_dir={name}"]) for name in lacking]
        raise UserError(
            f"{', '.join(lacking)}: expected an evaluation of the newest weights on "
            f"the pixels of seed {seed}; make it with: {'; '.join(commands)}"
        )


def by_model(found: list[Entry]) -> list[list[Entry]]:
    """The runs in groups that differ in the seed alone, in the order given."""
    models = {}
    for each in found:
        key = tuple(each.made[name] for name in SHAPING)
        group = models.setdefault(key, [])
        for other in group:
            if other.made["seed"] == each.made["seed"]:
                same = f"{other.name} and {each.name}"
                raise UserError(f"{same} are one model of one seed: leave one out")
        group.append(each)
    return [*models.values()]


def reached(model: list[Entry], first: list[Entry], loss: str):
    """(means over images, one a seed; the mean over images of the paired difference
    from the first model, and its standard error).

    What is hard about an image cancels out in pairs, for all saw the same pixels. The
    error is of these weights on other images, and not of other seeds.
    """
    by_image, others = ([e.losses[loss] for e in each] for each in (model, first))
    paired = np.mean(by_image, axis=0) - np.mean(others, axis=0)
    return np.mean(by_image, axis=1), *mean_and_error(paired)


def table(models) -> str:
    """What each model reaches, +- the standard deviation over its seeds, and its paired
    difference from the first, +- the standard error of that; in Markdown."""
    first, losses = models[0], [*models[0][0].losses]
    rows = [["runs", "differs by", *losses, *(f"{loss}, paired" for loss in losses)]]
    rows.append(["---"] * len(rows[0]))
    for model in models:
        special = differences("{0}={2}", sorted(SHAPING), first[0].made, model[0].made)
        row, pairs = [", ".join(each.name for each in model), " ".join(special)], []
        for loss in losses:
            means, paired, error = reached(model, first, loss)
            spread = f" +- {np.std(means, ddof=1):.2f}" if len(means) > 1 else ""
            row.append(f"{np.mean(means):.2f}{spread}")
            pairs.append(f"{paired:+.2f} +- {error or 0:.2f}" * (model is not first))
        rows.append(row + pairs)
    cells = ([" ".join(c.replace("|", r"\|").split()) for c in row] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)
