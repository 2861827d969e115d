"""A small state, and one that has taken a step."""

import tensorflow as tf

from core import settings as settings_of
from core.model.build import build
from core.training import adam
from core.training import state as states


def make_state(seed, hidden=(8,), ema=False):
    """A state that has taken one step along made-up gradients."""
    model = build(settings_of.Model(hidden_sizes=hidden))
    settings = settings_of.Adam(ema_decay=0.5 if ema else 0.0)
    state = states.init(model.init(seed), settings)
    grads = [tf.ones_like(p) * (seed + 1) for p in tf.nest.flatten(state.params)]
    adam.apply(state, grads, 0.01, settings)
    adam.follow(state, settings.ema_decay)
    state.step.assign_add(1)
    state.totals.assign([1.0, 2.0, 3.0, float(seed)])
    return state


def arrays(tree):
    """The numbers of every variable."""
    return [variable.numpy() for variable in tf.nest.flatten(tree)]
