"""Loss and gradients; one step; a block of steps as one compiled function."""

from typing import NamedTuple

import tensorflow as tf

from core import adam, objective, rng

MEASURES = (*objective.Losses._fields, "gradient_norm")  # of a step


class TrainState(NamedTuple):
    """All that training changes; saved and restored as it stands.

    `totals` are sums of the steps' `MEASURES` over the current epoch, so that its means
    survive a stop in its middle.
    """

    params: dict
    m: dict  # first moments, shaped like params
    v: dict  # second moments
    ema: dict  # the weights' moving average, shaped like params; {} for none
    step: tf.Variable  # int64 []: steps taken (int32 cannot be on a GPU)
    totals: tf.Variable  # float64 [4]
    seconds: tf.Variable  # float64 []: training time of the current epoch

    @property
    def averaged(self) -> dict:
        """The weights to evaluate and to draw with."""
        return self.ema or self.params


def init_state(params, ema=False) -> TrainState:
    """A state that has taken no step; with `ema` it keeps an average of the weights."""
    return TrainState(
        params,
        adam.init_moments(params),
        adam.init_moments(params),
        tf.nest.map_structure(tf.Variable, params) if ema else {},
        tf.Variable(0, dtype=tf.int64, name="step"),
        tf.Variable(tf.zeros([len(MEASURES)], tf.float64), name="totals"),
        tf.Variable(0.0, dtype=tf.float64, name="seconds"),
    )


def loss_and_gradients(infer, params, x, noise, y=None, **settings):
    """(`Losses`, gradients in the order of `tf.nest.flatten(params)`).

    `infer(params, x, noise, y=y)` is a model's forward pass, x [B, 784], noise
    [K, B, D]; `settings` are of `objective.losses`. By the standard estimator every
    gradient is the tape's. The others change the encoders' alone: it follows the path
    through the samples z, without the direct dependence of log q(z|x) on the encoder.

    * stl, "sticking the landing", for the ELBO: what is left out is 0 in the mean.
      Roeder et al. (arXiv 1703.09194).
    * dreg, doubly reparameterized, for the IWAE bound: what is left out has the mean of
      a second gradient through z. Together they give sample k's path the weight
      (w_k / sum_k w_k)^2: one factor is in the bound's own gradient, the other is
      `weights` below. Tucker et al. (arXiv 1810.04152), equation (8), which is derived
      for kl_weight = 1.

    With two layers (Bauer and Mnih, arXiv 2101.11046, section 4) z_1 and z_2 are one
    sample of q(z_1, z_2|x): z_2 and log q(z_2|z_1) still depend on z_1.
    """
    estimator = settings.get("estimator", "standard")
    with tf.GradientTape(persistent=estimator != "standard") as tape:
        inference = infer(params, x, noise, y=y)
        losses = objective.losses(inference, x, **settings)
    if estimator == "standard":
        return losses, tape.gradient(losses.loss, tf.nest.flatten(params))
    samples = [latent.z for latent in inference.latents]
    grads, by_samples = tape.gradient(losses.loss, (params, samples))
    weights = 1.0
    if estimator == "dreg":
        weights = objective.normalized_weights(inference, x)[..., None]
    names = ("encoder", "upper_encoder")[: len(samples)]
    for name, z, by_z in zip(names, samples, by_samples, strict=True):
        grads[name] = tape.gradient(z, params[name], output_gradients=weights * by_z)
    return losses, tf.nest.flatten(grads)


def make_train_step(
    gradients, learning_rate_at, *, beta1, beta2, epsilon, clip_norm=0.0, ema_decay=0.0
):
    """train_step(state, x, noise, y) -> this step's `MEASURES` [4], squared norms [V].

    `gradients(params, x, noise, y, step)` gives losses and gradients. The squared norms
    are of each variable's gradient: they tell which went wrong.
    """

    @tf.autograph.experimental.do_not_convert  # it takes seconds, and finds nothing
    def train_step(state, x, noise, y=None):
        losses, grads = gradients(state.params, x, noise, y, state.step)
        squares = adam.squared_norms(grads)
        norm = tf.sqrt(tf.reduce_sum(squares))
        if clip_norm:
            grads = adam.clip(grads, norm, clip_norm)
        # 0 * norm changes no number, but makes every assignment wait for all gradients:
        # XLA then updates the weights in place, and else copies them at each step.
        learning_rate = learning_rate_at(state.step) + 0 * norm
        adam.apply(state, grads, learning_rate, beta1, beta2, epsilon, ema_decay)
        return tf.stack([*losses, norm]), squares

    return train_step


def make_train_block(state, train_step, to_batch, jit: bool):
    """train_block(pixels, labels, order, noise, first, count) -> steps taken,
    `MEASURES` and squared norms of the last.

    Takes `count` steps as one call: step i uses the rows order[first + i] of `pixels`
    (uint8 [N, 784]) and `labels` (uint8 [N]), made x and y by `to_batch`, and noise[i].
    Stops after the first step whose loss or gradient is not finite; `state` is spoiled
    then, and what is returned of the last step tells why. One trace and one compilation
    serve every call, because nothing that varies is a Python number.
    """

    @tf.function(jit_compile=jit)
    def train_block(pixels, labels, order, noise, first, count):
        taken = tf.constant(0)
        values = tf.zeros([len(MEASURES)])
        squares = tf.zeros([len(tf.nest.flatten(state.params))])
        totals = tf.where(first == 0, tf.zeros_like(state.totals), state.totals)
        while taken < count and tf.reduce_all(tf.math.is_finite(values)):
            rows = tf.gather(order, first + taken)  # order[first + ...] would recompile
            x, y = to_batch(tf.gather(pixels, rows), tf.gather(labels, rows))
            values, squares = train_step(state, x, tf.gather(noise, taken), y)
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

    @tf.function(autograph=False)
    def draw_noise(step):
        return tf.map_fn(
            lambda s: rng.normal(rng.key(seed, rng.Stream.POSTERIOR, s), shape),
            step + tf.range(block_steps),
            fn_output_signature=tf.float32,
        )

    return draw_noise
