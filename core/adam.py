"""Adam, Algorithm 1 of Kingma and Ba (arXiv 1412.6980), written out."""

import math

import tensorflow as tf


def init_moments(params):
    """Zeros shaped like `params`: where the moments m and v start."""
    return tf.nest.map_structure(
        lambda p: tf.Variable(tf.zeros_like(p), name=p.name.split(":")[0]), params
    )


def update(grad, m, v, t, learning_rate, beta1, beta2, epsilon):
    """One step for one tensor -> (what to subtract from it, new m, new v).

    `t` (a float, 1 at the first step) counts this step. Epsilon stands outside the
    bias-corrected root, as in Algorithm 1.
    """
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad * grad
    m_hat = m * bias_correction(beta1, t)
    v_hat = v * bias_correction(beta2, t)
    return learning_rate * m_hat / (tf.sqrt(v_hat) + epsilon), m, v


def bias_correction(beta: float, t):
    """1 / (1 - beta^t), to multiply with, which is faster than to divide each number.

    By expm1: the plain form loses four float32 digits at small t.
    """
    return -1 / tf.math.expm1(t * math.log(beta)) if beta else tf.ones_like(t)


def squared_norms(grads):
    """The sum of squares of each gradient, [V]. Not finite where a gradient is not, nor
    where one is beyond 1e19 and its square overflows: no step survives either.

    Each row is summed by a product with ones: a plain sum to a scalar costs a tenth of
    the whole step under XLA on a CPU.
    """
    rows = [tf.reshape(g, [g.shape[0] if g.shape.rank else 1, -1]) for g in grads]
    ones = [tf.ones([g.shape[1]], g.dtype) for g in rows]
    sums = [tf.linalg.matvec(g * g, o) for g, o in zip(rows, ones, strict=True)]
    return tf.stack(list(map(tf.reduce_sum, sums)))


def clip(grads, norm, clip_norm: float):
    """Scale all gradients by min(1, clip_norm / norm), so that they keep direction.

    Pascanu et al. (arXiv 1211.5063), algorithm 1.
    """
    scale = clip_norm / tf.maximum(norm, clip_norm)
    return [g * scale for g in grads]


def learning_rate_at(step, learning_rate: float, schedule: str, total_steps: int):
    """The rate for `step` (from 0): constant, or half a cosine down to 0.

    Cosine: Loshchilov and Hutter (arXiv 1608.03983), equation (5), without restarts.
    """
    if schedule == "constant":
        return learning_rate
    done = tf.minimum(tf.cast(step, tf.float32) / total_steps, 1.0)
    return learning_rate * 0.5 * (1 + tf.cos(math.pi * done))


def average_decay(t, decay: float):
    """The decay of the weights' moving average at step `t` (from 1).

    It is min(decay, (1 + t) / (10 + t)), so that the start is soon forgotten.
    """
    return tf.minimum((1 + t) / (10 + t), decay)


def apply(state, grads, learning_rate, beta1, beta2, epsilon, ema_decay=0.0):
    """Assign one update to every variable of a `TrainState`, and count the step.

    `grads` is a flat list in the order of `state.params`. Where the state has a moving
    average of the weights, it follows: Polyak and Juditsky (1992), exponentially.
    """
    flat = tf.nest.flatten
    variables = zip(*map(flat, (state.params, state.m, state.v)), grads, strict=True)
    averages = flat(state.ema) or [None] * len(grads)
    for (p, m, v, grad), average in zip(variables, averages, strict=True):
        t = tf.cast(state.step + 1, grad.dtype)
        delta, m_new, v_new = update(
            grad, m, v, t, learning_rate, beta1, beta2, epsilon
        )
        p_new = p - delta
        p.assign(p_new)
        m.assign(m_new)
        v.assign(v_new)
        if average is not None:
            decay = average_decay(t, ema_decay)
            average.assign(decay * average + (1 - decay) * p_new)
    state.step.assign_add(1)
