import functools

import numpy as np
import pytest
import tensorflow as tf

from core import adam, batches, networks, objective, step, vae

BATCH, LATENT = 6, 3


def make_params(dtype=tf.float64, hidden=(7, 5)):
    return vae.init(0, hidden, LATENT, 0.13, dtype)


def make_batch(dtype=tf.float64, samples=2):
    random = np.random.default_rng(0)
    x = random.integers(0, 2, [BATCH, 784])
    noise = random.standard_normal([samples, BATCH, LATENT])
    return tf.constant(x, dtype), tf.constant(noise, dtype)


def infer_with(activation):
    return functools.partial(vae.infer, activation=vae.ACTIVATIONS[activation])


# --- Gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("activation", vae.ACTIVATIONS)
def test_every_variable_gets_a_finite_gradient_that_is_not_zero(activation, dtype):
    params = make_params(dtype, (64, 32))
    _, grads = step.loss_and_gradients(
        infer_with(activation), params, *make_batch(dtype)
    )
    for (name, variable), grad in zip(
        networks.named_variables(params), grads, strict=True
    ):
        assert grad.shape == variable.shape, name
        assert np.all(np.isfinite(grad)), name
        assert np.any(grad != 0), name


@pytest.mark.parametrize("activation", vae.ACTIVATIONS)
def test_gradients_agree_with_central_differences(activation):
    """In float64, for every variable: along its gradient, and aslant of it."""
    params, (x, noise) = make_params(), make_batch()
    infer = infer_with(activation)
    _, grads = step.loss_and_gradients(infer, params, x, noise)
    random = np.random.default_rng(1)
    for (name, variable), grad in zip(
        networks.named_variables(params), grads, strict=True
    ):
        size = np.linalg.norm(grad)
        uphill = grad.numpy() / size
        for direction in (uphill, random.standard_normal(grad.shape) / 2 + 2 * uphill):
            direction /= np.linalg.norm(direction)
            width = 1e-5
            values = []
            for sign in (1, -1):
                variable.assign_add(sign * width * direction)
                values.append(objective.negative_elbo(infer(params, x, noise), x).loss)
                variable.assign_sub(sign * width * direction)
            difference = float(values[0] - values[1]) / (2 * width)
            expected = float(np.sum(grad * direction))
            assert difference == pytest.approx(expected, rel=1e-6), name


def test_gradients_of_the_output_layer_are_the_formula_by_hand():
    """d distortion / d logits = sigmoid(logits) - x, a mean over samples and batch."""
    params, (x, noise) = make_params(), make_batch()
    _, grads = step.loss_and_gradients(infer_with("tanh"), params, x, noise)
    grads = tf.nest.pack_sequence_as(params, grads)["decoder"]["output"]
    (latent,), logits = vae.infer(params, x, noise, tf.tanh)
    error = (tf.sigmoid(logits) - x).numpy() / (2 * BATCH)  # [K, B, 784]
    decoder = params["decoder"]
    hidden = tf.tanh(networks.dense(decoder["dense_0"], latent.z))
    hidden = tf.tanh(networks.dense(decoder["dense_1"], hidden)).numpy()
    np.testing.assert_allclose(grads["b"], error.sum((0, 1)), rtol=1e-10)
    by_hand = np.einsum("kbh,kbp->hp", hidden, error)
    np.testing.assert_allclose(grads["w"], by_hand, rtol=1e-9, atol=1e-14)


def test_gradients_of_the_rate_are_the_formula_by_hand():
    """d KL / d z_mean = z_mean, d KL / d z_log_var = (exp(z_log_var) - 1) / 2."""
    params, (x, noise) = make_params(), make_batch()
    with tf.GradientTape() as tape:
        inference = vae.infer(params, x, noise, tf.tanh)
        rate = tf.reduce_mean(objective.kl(inference))
    bias = params["encoder"]["output"]["b"]
    (latent,) = inference.latents
    by_mean = latent.posterior_mean
    by_log_var = (tf.exp(latent.posterior_log_var) - 1) / 2
    by_hand = tf.reduce_mean(tf.concat([by_mean, by_log_var], axis=1), axis=0)
    np.testing.assert_allclose(tape.gradient(rate, bias), by_hand, rtol=1e-10)


# --- Blocks ---------------------------------------------------------------------------


def train(block_lengths, jit, learning_rate=1e-3, clip_norm=0.0):
    """(final state as arrays, tracing count) after 12 steps in such blocks."""
    images = tf.constant(np.random.default_rng(0).integers(0, 2, [72, 784]), tf.uint8)
    state = step.init_state(vae.init(0, (16,), LATENT, 0.13))
    train_step = step.make_train_step(
        infer_with("relu"), lambda t: learning_rate, 0.9, 0.999, 1e-8, clip_norm
    )
    to_float = functools.partial(batches.to_float, binarization="static")
    train_block = step.make_train_block(state, train_step, to_float, jit)
    draw_noise = step.make_draw_noise(0, 12, [1, BATCH, LATENT])
    order = batches.epoch_order(0, 0, 72, BATCH)
    done = 0
    for count in block_lengths:
        noise = draw_noise(tf.constant(done))
        train_block(images, order, noise, tf.constant(done), tf.constant(count))
        done += count
    arrays = {
        f"{part}/{name}": variable.numpy()
        for part in ("params", "m", "v")
        for name, variable in networks.named_variables(getattr(state, part))
    }
    arrays |= {"step": state.step.numpy(), "totals": state.totals.numpy()}
    return arrays, train_block.experimental_get_tracing_count()


@pytest.mark.parametrize("jit", [False, True])
def test_results_do_not_depend_on_how_steps_are_grouped(jit):
    whole, _ = train([12], jit)
    parts, traces = train([5, 0, 6, 1], jit)
    assert traces == 1
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)


def test_eager_graph_and_xla_agree():
    """Within float32 rounding, carried through twelve steps of Adam."""
    graph, _ = train([12], jit=False)
    xla, _ = train([12], jit=True)
    tf.config.run_functions_eagerly(True)
    try:
        eager, _ = train([12], jit=False)
    finally:
        tf.config.run_functions_eagerly(False)
    for name, array in graph.items():
        np.testing.assert_allclose(eager[name], array, 1e-4, 2e-6, err_msg=name)
        np.testing.assert_allclose(xla[name], array, 1e-4, 2e-6, err_msg=name)


def test_a_block_is_the_same_as_single_steps_by_hand():
    """The order's rows, each step's own noise, the totals of the epoch."""
    state = step.init_state(vae.init(0, (16,), LATENT, 0.13))
    images = np.random.default_rng(0).integers(0, 2, [72, 784])
    order = batches.epoch_order(0, 0, 72, BATCH).numpy()
    noise = step.make_draw_noise(0, 12, [1, BATCH, LATENT])(tf.constant(0))
    totals = np.zeros(4)
    for i in range(12):
        x = tf.constant(images[order[i]], tf.float32)
        losses, grads = step.loss_and_gradients(
            infer_with("relu"), state.params, x, noise[i]
        )
        adam.apply(
            *(state.params, grads, state.m, state.v, state.step),
            *(1e-3, 0.9, 0.999, 1e-8),
        )
        totals += [*losses, np.sqrt(sum(np.sum(g.numpy() ** 2) for g in grads))]
    found, _ = train([12], jit=False)
    np.testing.assert_allclose(found["totals"], totals, rtol=1e-5)
    for name, variable in networks.named_variables(state.params):
        np.testing.assert_allclose(found[f"params/{name}"], variable, 1e-4, 2e-6)


def test_noise_depends_on_the_step_alone():
    shape = [1, BATCH, LATENT]
    long = step.make_draw_noise(3, 8, shape)(tf.constant(10))
    short = step.make_draw_noise(3, 2, shape)(tf.constant(14))
    np.testing.assert_array_equal(long[4:6], short)
    assert len(np.unique(long)) == long.numpy().size
    assert not np.array_equal(step.make_draw_noise(4, 8, shape)(tf.constant(10)), long)


@pytest.mark.parametrize("jit", [False, True])
def test_a_block_stops_at_the_first_step_that_is_not_finite(jit):
    arrays, _ = train([12], jit, learning_rate=1e30)
    assert 1 < arrays["step"] < 12


def test_clipping_bounds_what_the_step_sees():
    free, _ = train([1], jit=False)
    clipped, _ = train([1], jit=False, clip_norm=1e-3)
    name = "m/decoder/output/w"
    assert free["totals"][3] == clipped["totals"][3] > 1  # the norm before clipping
    scale = 1e-3 / free["totals"][3]
    np.testing.assert_allclose(clipped[name], scale * free[name], 1e-5, 1e-12)
