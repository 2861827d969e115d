"""The progress of training, on a terminal alone."""

from core import progress

SHOWN = ("loss", "distortion", "rate")


class Screen:
    """A bar over all steps; lines are printed above it."""

    def __init__(self, done: int, total: int):
        self._bar = progress.bar(total, "step", "compiling", initial=done)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._bar.close()

    def show(self, epoch: int, done: int, measures) -> None:
        """How far training is, and its last step's `measures`, of which the first are
        `SHOWN`."""
        self._bar.set_description(f"epoch {epoch}", refresh=False)
        shown = zip(SHOWN, measures, strict=False)
        shown = {name: f"{value:.1f}" for name, value in shown}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        with self._bar.external_write_mode():
            progress.say(text)
