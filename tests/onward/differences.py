"""Gradients by central differences, in float64."""

import numpy as np
import pytest
import tensorflow as tf

from core.model import networks

WIDTH = 1e-5


def as_float64(params):
    """A copy to differentiate by."""
    return tf.nest.map_structure(lambda p: tf.Variable(tf.cast(p, tf.float64)), params)


def assert_differences_agree(loss, params):
    """Of `loss()` by each of the params: along its gradient, and aslant of it."""
    with tf.GradientTape() as tape:
        value = loss()
    random, grads = np.random.default_rng(1), tape.gradient(value, params)
    flat = tf.nest.flatten(grads)
    named = networks.named_variables(params)
    for (name, variable), grad in zip(named, flat, strict=True):
        size = np.linalg.norm(grad)
        assert size > 0, name
        uphill = grad.numpy() / size
        for direction in (uphill, random.standard_normal(grad.shape) / 2 + 2 * uphill):
            direction = direction / np.linalg.norm(direction)
            values = []
            for sign in (1, -1):
                variable.assign_add(sign * WIDTH * direction)
                values.append(float(loss()))
                variable.assign_sub(sign * WIDTH * direction)
            found = (values[0] - values[1]) / (2 * WIDTH)
            expected = float(np.sum(grad * direction))
            assert found == pytest.approx(expected, rel=1e-5, abs=1e-9), name
