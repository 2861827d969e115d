"""Numbers that are not finite: which, and what to do."""

import math

import numpy as np
import tensorflow as tf

from core.errors import UserError
from core.model import networks


def expect_finite(numbers, state, squares, settings, folder) -> None:
    """Raise UserError if one of the `numbers` is not finite.

    `squares` are the squared norms of the last step's gradients: they tell which went
    wrong. `settings` are `settings.Adam`; `folder` knows how to go on.
    """
    if _finite([*numbers]):
        return
    formula, step = _finite(_half_squares(state)), int(state.step)
    what = "every gradient is finite, but the weights are ruined"
    if formula:
        what = "every gradient and weight is finite: look at the loss's formula"
    named = networks.named_variables(state.params)
    for (name, _), square in zip(named, squares.numpy(), strict=True):
        if not math.isfinite(square):
            what = f"the first variable whose gradient is not finite: {name}"
            break
    rate = settings.learning_rate
    advice = folder.how_to_go_on(f"--learning_rate={rate / 10:g}")
    if step == 1 and (formula or not _finite(squares)):
        advice = "No rate has changed a weight yet: look at the data, at --beta, "
        advice += "and at a formula of your own"
    raise UserError(
        f"the loss, or what it left behind, is not finite at step {step}, with "
        f"--learning_rate={rate:g}; {what}. {advice}"
    )


def _finite(numbers) -> bool:
    return bool(np.all(np.isfinite(numbers)))


def _half_squares(state) -> list:
    return [tf.nn.l2_loss(p) for p in tf.nest.flatten(state.params)]


def expect_finite_weights(state, squares, settings, folder) -> None:
    """Raise UserError, as `expect_finite`, if a weight or its square is not finite."""
    expect_finite(_half_squares(state), state, squares, settings, folder)
