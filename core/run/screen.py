"""The progress of training: a bar on a terminal, and lines."""

import contextlib

from core import progress

SHOWN = ("loss", "distortion", "rate")


class Screen(contextlib.ExitStack):
    """A bar over all steps; lines are printed above it."""

    def __init__(self, done: int, total: int):
        super().__init__()
        self._bar = progress.bar(total, "step", "compiling", initial=done)
        self.callback(self._bar.close)

    def show(self, epoch: int, done: int, measures) -> None:
        """How far training is, and the `measures` of its last step, `SHOWN` first."""
        shown = zip(SHOWN, (f"{value:.1f}" for value in measures), strict=False)
        self._bar.set_description(f"epoch {epoch}", refresh=False)
        self._bar.set_postfix(dict(shown), refresh=False)
        self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        with self._bar.external_write_mode():
            progress.say(text)
        self._bar.spoken()
