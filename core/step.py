"""Loss and gradients; one step; a block of steps as one compiled function."""

from typing import NamedTuple

import tensorflow as tf

from core import adam, objective, rng

TOTALS = ("loss", "distortion", "rate", "gradient_norm")


class TrainState(NamedTuple):
    """All that training changes; saved and restored as it stands.

    `totals` are sums over the steps of the current epoch, in the order of `TOTALS`,
    so that the epoch's means survive a stop in its middle.
    """

    params: dict
    m: dict  # first moments, shaped like params
    v: dict  # second moments
    step: tf.Variable  # int64 []: steps taken (int32 cannot be on a GPU)
    totals: tf.Variable  # float64 [4]
    seconds: tf.Variable  # float64 []: training time of the current epoch


def init_state(params) -> TrainState:
    """A state that has taken no step."""
    return TrainState(
        params,
        adam.init_moments(params),
        adam.init_moments(params),
        tf.Variable(0, dtype=tf.int64, name="step"),
        tf.Variable(tf.zeros([len(TOTALS)], tf.float64), name="totals"),
        tf.Variable(0.0, dtype=tf.float64, name="seconds"),
    )


def loss_and_gradients(infer, params, x, noise):
    """(`Losses`, gradients in the order of `tf.nest.flatten(params)`).

    `infer(params, x, noise)` is a model's forward pass, x [B, 784], noise [K, B, D].
    """
    variables = tf.nest.flatten(params)
    with tf.GradientTape() as tape:
        losses = objective.negative_elbo(infer(params, x, noise), x)
    return losses, tape.gradient(losses.loss, variables)


def make_train_step(infer, learning_rate_at, beta1, beta2, epsilon, clip_norm=None):
    """train_step(state, x, noise) -> this step's `TOTALS` [4] and squared norms [V].

    The squared norms are of each variable's gradient: they tell which went wrong.
    """

    def train_step(state, x, noise):
        losses, grads = loss_and_gradients(infer, state.params, x, noise)
        squares = adam.squared_norms(grads)
        norm = tf.sqrt(tf.reduce_sum(squares))
        if clip_norm:
            grads = adam.clip(grads, norm, clip_norm)
        learning_rate = learning_rate_at(state.step)
        adam.apply(
            *(state.params, grads, state.m, state.v, state.step),
            *(learning_rate, beta1, beta2, epsilon),
        )
        return tf.stack([*losses, norm]), squares

    return train_step


def make_train_block(state, train_step, to_float, jit: bool):
    """train_block(pixels, order, noise, first, count) -> steps taken, `TOTALS`, norms.

    Takes `count` steps as one call: step i uses the rows order[first + i] of `pixels`
    (uint8 [N, 784], made float by `to_float`) and noise[i]. Stops after the first step
    whose loss or gradient is not finite; `state` is spoiled then, and what is returned
    of the last step tells why. One trace and one compilation serve every call, because
    nothing that varies is a Python number.
    """

    @tf.function(jit_compile=jit)
    def train_block(pixels, order, noise, first, count):
        taken = tf.constant(0)
        values = tf.zeros([len(TOTALS)])
        squares = tf.zeros([len(tf.nest.flatten(state.params))])
        totals = tf.where(first == 0, tf.zeros_like(state.totals), state.totals)
        while taken < count and tf.reduce_all(tf.math.is_finite(values)):
            rows = tf.gather(order, first + taken)  # order[first + ...] would recompile
            x = to_float(tf.gather(pixels, rows))
            values, squares = train_step(state, x, tf.gather(noise, taken))
            totals += tf.cast(values, tf.float64)
            taken += 1
        state.totals.assign(totals)
        return taken, values, squares

    return train_block


def make_draw_noise(seed: int, block_steps: int, shape):
    """draw_noise(step) -> N(0, 1) noise [block_steps, *shape] for the steps from it on.

    Each step's noise has its own key, so it does not depend on how steps are grouped.
    It is drawn outside the compiled block, where Philox runs ten times as fast.
    """

    @tf.function
    def draw_noise(step):
        return tf.map_fn(
            lambda s: rng.normal(rng.key(seed, rng.Stream.POSTERIOR, s), shape),
            step + tf.range(block_steps),
            fn_output_signature=tf.float32,
        )

    return draw_noise
