"""The end of a run: held-out numbers on the screen and on disk, and its figures."""

from core.evaluation import record as records
from core.run import text
from core.run.process import say
from core.show import figures, gallery

PARTS = ("loss", "distortion", "rate")


def evaluate(model, weights, data, folder, run_settings, settings) -> None:
    """What a model with these weights reaches, as `settings.Evaluation` asks."""
    evaluated = records.evaluation(model, weights, data, run_settings, settings)
    where = {"epoch": folder.epoch, "step": folder.step}
    record = where | evaluated.record | folder.start
    folder.add_evaluation(record)
    history = folder.history(curves(data))
    if run_settings.figures:
        part = part_of(evaluated, run_settings.mode)
        path = folder.path / "figures" / part
        gallery.draw_images(model, weights, evaluated, path)
        gallery.draw_samples(model, weights, run_settings.seed, path)
        gallery.draw_manifold(model, weights, path)
        if history:
            unit = text.unit(data.binarization)
            figures.learning_curves(path / "learning_curves.png", history, unit)
    seconds = sum(epoch["seconds"] for epoch in history)
    say(text.summary(record, evaluated.of_images, model.latent_dims, seconds))
    say(f"All is in     {folder.path}/")


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
