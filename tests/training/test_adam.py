import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.training import adam
from core.training import state as states

SETTINGS = dict(beta1=0.9, beta2=0.999, epsilon=1e-8)
RATE = 0.01
SHAPES = ([7, 5], [5], [])


def numpy_adam(start, gradients, learning_rate, beta1, beta2, epsilon, decay=0.0):
    """Algorithm 1, in float64, and weight decay beside it."""
    p, m, v = np.array(start, np.float64), 0.0, 0.0
    for t, gradient in enumerate(np.asarray(gradients, np.float64), start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        p = p - learning_rate * (m_hat / (np.sqrt(v_hat) + epsilon) + decay * p)
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


def hand_written(start, gradients, adam_settings):
    params = {f"p{i}": tf.Variable(s) for i, s in enumerate(start)}
    state = states.init(params, adam_settings)
    for i in range(len(gradients[0])):
        grads = [tf.constant(g[i]) for g in gradients]
        adam.apply(state, grads, RATE, adam_settings)
        adam.follow(state, adam_settings.ema_decay)
        state.step.assign_add(1)
    return [p.numpy() for p in state.weights.values()]


@pytest.mark.parametrize("beta1", [0.9, 0.0])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(tf.float32, 1e-6), (tf.float64, 1e-12)]
)
def test_adam_agrees_with_algorithm_1_in_float64(dtype, tolerance, beta1):
    start, gradients = problem(dtype)
    hyper = SETTINGS | {"beta1": beta1}
    found = hand_written(start, gradients, settings.Adam(ema_decay=0.0, **hyper))
    for p, s, g in zip(found, start, gradients, strict=True):
        expected = numpy_adam(s, g, RATE, **hyper)
        np.testing.assert_allclose(p, expected, tolerance, tolerance)


def test_weight_decay_shrinks_matrices_beside_the_gradient():
    """By hand in float64; biases and numbers are left alone."""
    start, gradients = problem(tf.float64)
    decayed = settings.Adam(ema_decay=0.0, weight_decay=0.5, **SETTINGS)
    found = hand_written(start, gradients, decayed)
    for p, s, g in zip(found, start, gradients, strict=True):
        decay = 0.5 if s.ndim > 1 else 0.0
        expected = numpy_adam(s, g, RATE, **SETTINGS, decay=decay)
        np.testing.assert_allclose(p, expected, 1e-12, 1e-12)


def test_the_first_steps_move_by_the_learning_rate():
    """Where a float32 beta^t loses digits: with any gradient, by +-alpha exactly."""
    grad, t = tf.constant(3e-4), tf.constant(1.0)
    delta, _, _ = adam.update(grad, 0.0, 0.0, t, RATE, **SETTINGS)
    assert float(delta) == pytest.approx(0.01 * 3e-4 / (3e-4 + 1e-8), rel=3e-7)


def test_adam_agrees_with_keras():
    """Keras adds epsilon before the correction of the root; a tiny one hides that."""
    hyper = SETTINGS | {"epsilon": 1e-16}
    start, gradients = problem(tf.float32)
    oracle = keras.optimizers.Adam(RATE, *(hyper[k] for k in SETTINGS))
    variables = [keras.Variable(s) for s in start]
    for i in range(100):
        grads = [tf.constant(g[i]) for g in gradients]
        oracle.apply_gradients(zip(grads, variables, strict=True))
    found = hand_written(start, gradients, settings.Adam(ema_decay=0.0, **hyper))
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
    found = hand_written(start, gradients, settings.Adam(ema_decay=0.9, **SETTINGS))
    for average, s, g in zip(found, start, gradients, strict=True):
        expected = s
        for t in range(1, 101):
            decay = min(0.9, (1 + t) / (10 + t))
            p = numpy_adam(s, g[:t], RATE, **SETTINGS)
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


def test_neither_the_update_nor_the_average_counts_the_step():
    """Both are of the same step, which `train_step` counts once, at its end."""
    adam_settings = settings.Adam(ema_decay=0.9)
    state = states.init({"p": tf.Variable([1.0, 2.0])}, adam_settings)
    adam.apply(state, [tf.constant([1.0, -1.0])], RATE, adam_settings)
    adam.follow(state, 0.9)
    assert int(state.step) == 0
    np.testing.assert_array_equal(state.totals, np.zeros(4))


def test_without_an_average_nothing_follows():
    state = states.init({"p": tf.Variable([1.0, 2.0])}, settings.Adam(ema_decay=0.0))
    adam.follow(state, 0.9)
    np.testing.assert_array_equal(state.params["p"], [1.0, 2.0])
    assert state.average == {}


def test_moments_start_at_zero_under_their_weights_names():
    params = {"net": {"w": tf.Variable([[1.0, 2.0]], name="net/w")}}
    moments = adam.init_moments(params)
    np.testing.assert_array_equal(moments["net"]["w"], [[0.0, 0.0]])
    assert moments["net"]["w"].name == "net/w:0"
    assert moments["net"]["w"] is not params["net"]["w"]
