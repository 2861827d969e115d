"""The end of a run: held-out numbers on the screen and on disk, and its figures."""

from functools import partial

from core import settings as settings_of
from core.data import digits
from core.errors import UserError
from core.evaluation import record as records
from core.progress import complain, say
from core.run import files, program, text
from core.show import explorer, figures, film, gallery

OF_TRAINING = ("objective", "num_samples", "estimator", "beta", "prior")


def evaluate(model, weights, data, folder, run_settings, settings) -> None:
    """Show, then write, then draw what a model with these weights reaches, as
    `settings.Evaluation` asks. What cannot be written or drawn costs itself alone; a
    UserError names it at the end."""
    found = measure(model, weights, data, folder, run_settings, settings)
    evaluated, _, drawings, path = found
    record = evaluated.record
    numbers = folder.path / record["file"]
    tasks = {record["file"]: partial(files.write_arrays, numbers, evaluated.images)}
    tasks["evaluations.jsonl"] = partial(folder.add_evaluation, record)
    if run_settings.figures:
        say("Drawing figures")
        if path.name == "figures":  # the run's own
            of_page = model, weights, data, folder, record["split"]
            drawings["explorer.html"] = lambda path: explorer.write(path, *of_page)
        tasks |= {name: partial(draw, path / name) for name, draw in drawings.items()}
    if run_settings.film:
        to, seed = folder.path / "figures" / "film.gif", run_settings.seed
        tasks["film.gif"] = partial(film.make, to, model, weights, folder, seed)
    _do_each(tasks, folder)


def measure(model, weights, data, folder, run_settings, settings):
    """Evaluate as `settings.Evaluation` asks, and say it -> (`Evaluated`, whose record
    also tells of the run, the summary's lines, `gallery.drawings` and the learning
    curves, the folder for them)."""
    kind, where = settings.evaluation_split, _weights_of(folder)
    say(f"Evaluating on {kind} images")
    there = data.record[f"{kind}_images"]
    images = min(settings.evaluation_images or there, there)
    if images < there:
        labels = getattr(data, kind).labels[:images], data.train.labels
        for remark in digits.of_classes(f"first {images:,} {kind}", *labels):
            say(remark)
    asked = {
        "split": kind,
        "images": images,
        "seed": run_settings.seed,
        "importance_samples": settings.importance_samples,
        "bfloat16": settings.bfloat16,
    }
    # Numbers of each image, by which two models can be compared in pairs.
    asked["file"] = f"evaluations/{'_'.join(_parts(asked | where))}.npz"
    history = folder.history(curves(data))
    known = folder.evaluated_before(where | asked)
    evaluated = records.evaluation(model, weights, data, run_settings, settings, known)
    record = where | evaluated.record
    if history and "kl_weight" in history[-1]:
        record["kl_weight"] = history[-1]["kl_weight"]
    record["file"] = asked["file"]
    seconds = sum(epoch["seconds"] for epoch in history)
    summary = record, there, model.latent_dims, seconds
    say(text.summary(*summary))
    # The run's own pictures are of all test images, or follow training.
    own = run_settings.mode == "train" or (kind, images) == ("test", there)
    path = folder.path / "figures" / ("" if own else f"{kind}_{images}")
    evaluated = evaluated._replace(record=record)
    drawings, unit = {}, text.unit(data.binarization)
    if history:
        drawings["learning_curves.png"] = lambda path: figures.learning_curves(
            path, history, unit
        )
    drawings |= gallery.drawings(model, weights, evaluated)
    return evaluated, text.summary_lines(*summary), drawings, path


def _weights_of(folder) -> dict:
    """Which weights are evaluated, how they were trained, and by which program."""
    flags, where = folder.recorded["flags"], {"epoch": folder.epoch}
    trained = settings_of.values_of(settings_of.from_record(flags, str(folder.path)))
    where |= folder.weights | {name: trained[name] for name in OF_TRAINING}
    return where | folder.start | {"program": program.version()["sha256"][:12]}


def _parts(of: dict) -> list[str]:
    """What the name of an evaluation's file is made of."""
    parts = [of["split"], str(of["images"]), f"seed{of['seed']}", f"step{of['step']}"]
    if of["importance_samples"]:
        parts.append(f"k{of['importance_samples']}" + "_bfloat16" * of["bfloat16"])
    return [*parts, of["checkpoint"], of["program"]]


def _do_each(tasks: dict, folder) -> None:
    failed = []
    for name, task in tasks.items():
        folder.expect_there()
        try:
            task()
        except (OSError, MemoryError) as error:
            complain(f"{name} cannot be written: {error}")
            failed.append(name)
    if failed:
        raise UserError(
            f"not written: {', '.join(failed)}; the same command with --mode=evaluate "
            "makes what is missing"
        )
    say(f"All is in     {folder.path}/")


def curves(data) -> list[str]:
    """The fields of metrics.jsonl that the report and the figures need."""
    kinds = ["train", "validation"] if len(data.validation.pixels) else ["train"]
    parts = ("loss", "distortion", "rate")
    return ["epoch", "step", "seconds", *(f"{k}_{p}" for k in kinds for p in parts)]
