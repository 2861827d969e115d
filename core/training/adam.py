"""Adam, Algorithm 1 of Kingma and Ba (arXiv 1412.6980), written out."""

import math

import tensorflow as tf

from core import numerics


def init_moments(params):
    """Zeros shaped like `params`: where the moments m and v start."""
    return tf.nest.map_structure(
        lambda p: tf.Variable(tf.zeros_like(p), name=p.name.split(":")[0]), params
    )


def update(grad, m, v, t, learning_rate, beta1, beta2, epsilon):
    """One step for one tensor -> (what to subtract from it, new m, new v). The float
    `t` is 1 at the first. Epsilon stands outside the bias-corrected root."""
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad * grad
    m_hat = m * bias_correction(beta1, t)
    v_hat = v * bias_correction(beta2, t)
    return learning_rate * m_hat / (tf.sqrt(v_hat) + epsilon), m, v


def bias_correction(beta: float, t):
    """1 / (1 - beta^t): to multiply with it is faster than to divide each number. The
    plain form, without expm1, loses four float32 digits at small t."""
    return -1 / tf.math.expm1(t * math.log(beta)) if beta else tf.ones_like(t)


def squared_norms(grads):
    """The sum of squares of each gradient, [V]. Not finite where a gradient is not, nor
    where one is beyond 1e19 and its square overflows: no step survives either."""
    rows = [tf.reshape(g, [g.shape[0] if g.shape.rank else 1, -1]) for g in grads]
    return tf.stack([tf.reduce_sum(numerics.sum_rows(g * g)) for g in rows])


def clip(grads, norm, clip_norm: float):
    """Scale all gradients by min(1, clip_norm / norm): Pascanu et al. (arXiv
    1211.5063), algorithm 1."""
    scale = clip_norm / tf.maximum(norm, clip_norm)
    return [g * scale for g in grads]


def apply(state, grads, learning_rate, settings) -> None:
    """Assign one update of `settings.Adam` to every weight and moment of a state;
    `grads` are in the order of its flattened weights.

    `weight_decay` shrinks all but vectors (such as biases), beside the gradient and its
    moments: Loshchilov and Hutter (arXiv 1711.05101), algorithm 2, whose lambda is
    `learning_rate * weight_decay`.
    """
    flat = map(tf.nest.flatten, (state.params, state.m, state.v))
    hyper = settings.beta1, settings.beta2, settings.epsilon
    for p, m, v, grad in zip(*flat, grads, strict=True):
        t = tf.cast(state.step + 1, grad.dtype)
        delta, m_new, v_new = update(grad, m, v, t, learning_rate, *hyper)
        if settings.weight_decay and p.shape.rank > 1:
            delta += learning_rate * settings.weight_decay * p
        p.assign(p - delta)
        m.assign(m_new)
        v.assign(v_new)


def follow(state, ema_decay: float) -> None:
    """Let the moving average of the weights, where the state keeps one, follow them.

    Polyak and Juditsky (1992), exponentially. The decay at step t (from 1) is
    min(ema_decay, (1 + t) / (10 + t)), so that the start is soon forgotten.
    """
    if not state.average:
        return
    flat = map(tf.nest.flatten, (state.average, state.params))
    for average, p in zip(*flat, strict=True):
        t = tf.cast(state.step + 1, p.dtype)
        decay = tf.minimum((1 + t) / (10 + t), ema_decay)
        average.assign(decay * average + (1 - decay) * p)
