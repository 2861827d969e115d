"""The end of a run: held-out numbers on the screen and on disk, and its figures."""

from functools import partial

from core import settings as settings_of
from core.errors import UserError
from core.evaluation import record as records
from core.progress import complain, say
from core.run import program, text
from core.show import figures, gallery

OF_TRAINING = ("objective", "num_samples", "estimator", "beta", "prior")


def evaluate(model, weights, data, folder, run_settings, settings) -> None:
    """Show, then write, then draw what a model with these weights reaches, as
    `settings.Evaluation` asks. What cannot be written or drawn costs itself alone; a
    UserError names it at the end."""
    kind, flags = settings.evaluation_split, folder.recorded["flags"]
    say(f"Evaluating on {kind} images")
    there = data.record[f"{kind}_images"]
    images = min(settings.evaluation_images or there, there)
    where = {"epoch": folder.epoch, "step": folder.step}
    trained = settings_of.values_of(settings_of.from_record(flags, str(folder.path)))
    where |= {name: trained[name] for name in OF_TRAINING} | folder.start
    where["program"] = program.version()["sha256"][:12]
    asked = {
        "split": kind,
        "images": images,
        "seed": run_settings.seed,
        "importance_samples": settings.importance_samples,
        "bfloat16": settings.bfloat16,
    }
    history = folder.history(curves(data))
    known = folder.evaluated_before(where | asked)
    evaluated = records.evaluation(model, weights, data, run_settings, settings, known)
    record = where | evaluated.record
    if history and "kl_weight" in history[-1]:
        record["kl_weight"] = history[-1]["kl_weight"]
    seconds = sum(epoch["seconds"] for epoch in history)
    say(text.summary(record, there, model.latent_dims, seconds))
    tasks = {"evaluations.jsonl": partial(folder.add_evaluation, record)}
    if run_settings.figures:
        say("Drawing figures")
        drawings = gallery.drawings(model, weights, evaluated)
        if history:
            drawings["learning_curves.png"] = lambda path: figures.learning_curves(
                path, history, text.unit(data.binarization)
            )
        # The run's own are of all test images, or follow training.
        own = run_settings.mode == "train" or (kind, images) == ("test", there)
        path = folder.path / "figures" / ("" if own else f"{kind}_{images}")
        tasks |= {name: partial(draw, path / name) for name, draw in drawings.items()}
    _do_each(tasks, folder.path)


def _do_each(tasks: dict, path) -> None:
    failed = []
    for name, task in tasks.items():
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
    say(f"All is in     {path}/")


def curves(data) -> list[str]:
    """The fields of metrics.jsonl that the report and the figures need."""
    kinds = ["train", "validation"] if len(data.validation.pixels) else ["train"]
    parts = ("loss", "distortion", "rate")
    return ["epoch", "step", "seconds", *(f"{k}_{p}" for k in kinds for p in parts)]
