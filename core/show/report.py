"""The end of a run: held-out numbers on the screen and on disk, and its figures."""

from core.errors import UserError
from core.evaluation import record as records
from core.progress import complain, say
from core.run import program, text
from core.show import figures, gallery

PARTS = ("loss", "distortion", "rate")
OF_TRAINING = ("objective", "num_samples", "estimator", "beta")


def evaluate(model, weights, data, folder, run_settings, settings) -> None:
    """What a model with these weights reaches, as `settings.Evaluation` asks.

    The numbers are shown first, then written, then drawn. What cannot be written or
    drawn costs that alone.

    Raises:
      UserError: something could not be written or drawn; the message names it.
    """
    kind = settings.evaluation_split
    say(f"Evaluating on {kind} images")
    flags = folder.recorded["flags"]
    where = {"epoch": folder.epoch, "step": folder.step}
    where |= {name: flags[name] for name in OF_TRAINING} | folder.start
    where["program"] = program.version()["sha256"][:12]
    images = data.record[f"{kind}_images"]
    asked = {
        "split": kind,
        "images": min(settings.evaluation_images or images, images),
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
    say(text.summary(record, evaluated.of_images, model.latent_dims, seconds))
    tasks = {"evaluations.jsonl": lambda: folder.add_evaluation(record)}
    if run_settings.figures:
        say("Drawing figures")
        path = folder.path / "figures" / part_of(evaluated, run_settings.mode)
        tasks |= gallery.drawings(model, weights, evaluated, path)
        tasks["samples.png"] = lambda: gallery.draw_samples(
            model, weights, run_settings.seed, path
        )
        if history:
            unit = text.unit(data.binarization)
            tasks["learning_curves.png"] = lambda: figures.learning_curves(
                path / "learning_curves.png", history, unit
            )
    _do_each(tasks, folder.path)


def _do_each(tasks: dict, path) -> None:
    """Do all of {name: function}. What fails is named, and the others are done."""
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
    parts = [f"{kind}_{part}" for kind in kinds for part in PARTS]
    return ["epoch", "step", "seconds", *parts]


def part_of(evaluated, mode: str) -> str:
    """The folder, within that of the figures, for those of an evaluation: they are the
    run's own where they are of all test images, or follow training."""
    kind, images = evaluated.record["split"], evaluated.record["images"]
    whole = kind == "test" and images == evaluated.of_images
    return "" if whole or mode == "train" else f"{kind}_{images}"
