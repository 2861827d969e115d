import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from core import adam, step

SETTINGS = dict(learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8)
SHAPES = ([7, 5], [5], [])


def numpy_adam(start, gradients, learning_rate, beta1, beta2, epsilon):
    """Algorithm 1, in float64."""
    p, m, v = np.array(start, np.float64), 0.0, 0.0
    for t, gradient in enumerate(np.asarray(gradients, np.float64), start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        p = p - learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)
    return p


def problem(dtype, steps=100):
    """(start, gradients at each step) for variables of several shapes and scales."""
    random = np.random.default_rng(0)
    start = [random.standard_normal(shape) for shape in SHAPES]
    scales = 10.0 ** random.uniform(-6, 2, [len(SHAPES)])
    gradients = [
        [scale * random.standard_normal(shape) for _ in range(steps)]
        for scale, shape in zip(scales, SHAPES, strict=True)
    ]
    return (
        [np.asarray(s, dtype.as_numpy_dtype) for s in start],
        [np.asarray(g, dtype.as_numpy_dtype) for g in gradients],
    )


def hand_written(start, gradients, settings):
    params = {f"p{i}": tf.Variable(s) for i, s in enumerate(start)}
    state = step.init_state(params, ema="ema_decay" in settings)
    for i in range(len(gradients[0])):
        grads = [tf.constant(g[i]) for g in gradients]
        adam.apply(state, grads, **settings)
    assert int(state.step) == len(gradients[0])
    return [p.numpy() for p in state.averaged.values()]


@pytest.mark.parametrize("beta1", [0.9, 0.0])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(tf.float32, 1e-6), (tf.float64, 1e-12)]
)
def test_adam_agrees_with_algorithm_1_in_float64(dtype, tolerance, beta1):
    start, gradients = problem(dtype)
    settings = SETTINGS | {"beta1": beta1}
    found = hand_written(start, gradients, settings)
    for p, s, g in zip(found, start, gradients, strict=True):
        np.testing.assert_allclose(
            p, numpy_adam(s, g, **settings), tolerance, tolerance
        )


def test_the_first_steps_move_by_the_learning_rate():
    """Where a float32 beta^t loses digits: with any gradient, by +-alpha exactly."""
    delta, _, _ = adam.update(tf.constant(3e-4), 0.0, 0.0, tf.constant(1.0), **SETTINGS)
    assert float(delta) == pytest.approx(0.01 * 3e-4 / (3e-4 + 1e-8), rel=3e-7)


def test_adam_agrees_with_keras():
    """Keras adds epsilon before the correction of the root; a tiny one hides that."""
    settings = SETTINGS | {"epsilon": 1e-16}
    start, gradients = problem(tf.float32)
    oracle = keras.optimizers.Adam(*(settings[k] for k in SETTINGS))
    variables = [keras.Variable(s) for s in start]
    for i in range(100):
        grads = [tf.constant(g[i]) for g in gradients]
        oracle.apply_gradients(zip(grads, variables, strict=True))
    found = hand_written(start, gradients, settings)
    for p, variable in zip(found, variables, strict=True):
        np.testing.assert_allclose(p, variable.numpy(), rtol=1e-4, atol=1e-6)


def test_epsilon_stands_outside_the_corrected_root():
    delta, _, _ = adam.update(
        tf.constant(1.0, tf.float64),
        0.0,
        0.0,
        tf.constant(1.0, tf.float64),
        1.0,
        0.9,
        0.999,
        0.5,
    )
    assert float(delta) == pytest.approx(1 / 1.5, rel=1e-12)


def test_the_average_follows_the_weights():
    """By hand in float64: decay min(0.9, (1 + t) / (10 + t)) at step t."""
    start, gradients = problem(tf.float64)
    found = hand_written(start, gradients, SETTINGS | {"ema_decay": 0.9})
    for average, s, g in zip(found, start, gradients, strict=True):
        expected = s
        for t in range(1, 101):
            decay = min(0.9, (1 + t) / (10 + t))
            p = numpy_adam(s, g[:t], **SETTINGS)
            expected = decay * expected + (1 - decay) * p
        np.testing.assert_allclose(average, expected, 1e-10, 1e-12)


def test_clipping_keeps_the_direction_and_bounds_the_norm():
    grads = [tf.constant([3.0, 0.0]), tf.constant([[4.0]])]
    norm = tf.sqrt(tf.reduce_sum(adam.squared_norms(grads)))
    assert float(norm) == 5
    clipped = adam.clip(grads, norm, 2.5)
    np.testing.assert_allclose(clipped[0], [1.5, 0])
    np.testing.assert_allclose(clipped[1], [[2]])
    np.testing.assert_allclose(adam.clip(grads, norm, 6.0)[0], [3, 0])


def test_squared_norms_tell_which_gradient_is_not_finite():
    grads = [tf.constant([1.0]), tf.constant([1.0, math.nan]), tf.constant([-math.inf])]
    finite = np.isfinite(adam.squared_norms(grads))
    assert finite.tolist() == [True, False, False]


def test_schedules():
    constant = adam.learning_rate_at(tf.constant(70), 0.1, "constant", 100)
    assert float(constant) == pytest.approx(0.1)
    cosine = [
        float(adam.learning_rate_at(tf.constant(step), 0.1, "cosine", 100))
        for step in (0, 50, 75, 100, 150)
    ]
    expected = [0.1, 0.05, 0.05 * (1 - math.sqrt(0.5)), 0, 0]
    assert cosine == pytest.approx(expected, abs=1e-8)
