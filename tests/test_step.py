import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from core import adam, batches, hierarchical, networks, objective, step, vae

BATCH, LATENT = 6, 3


def make_params(dtype=tf.float64, hidden=(7, 5)):
    return vae.init(0, hidden, LATENT, 0.13, dtype)


def make_batch(dtype=tf.float64, samples=2, dims=LATENT):
    random = np.random.default_rng(0)
    x = random.integers(0, 2, [BATCH, 784])
    noise = random.standard_normal([samples, BATCH, dims])
    return tf.constant(x, dtype), tf.constant(noise, dtype)


def infer_with(activation, model=vae):
    return functools.partial(model.infer, activation=networks.ACTIVATIONS[activation])


# --- Gradients ------------------------------------------------------------------------

LABELS = tf.one_hot([3, 1, 4, 1, 5, 9], 10, dtype=tf.float64)
CONV = dict(filters=(2, 3))
MODELS = {
    "dense": (vae, make_params, None),
    "conditional": (vae, lambda: vae.init(0, (7,), 3, 0.13, tf.float64, 10), LABELS),
    "conv": (vae, lambda: vae.init(0, (), 3, 0.13, tf.float64, 10, (2, 3)), LABELS),
    "two layers": (
        hierarchical,
        lambda: hierarchical.init(0, (7,), (2, 1), (5,), 0.13, tf.float64),
        None,
    ),
    "two conv": (
        hierarchical,
        lambda: hierarchical.init(
            0, (), (2, 1), (5,), 0.13, tf.float64, classes=10, filters=(2, 3)
        ),
        LABELS,
    ),
}
OBJECTIVES = {
    "elbo": {},
    "beta": dict(kl_weight=0.3),
    "free bits": dict(free_bits=0.02),
    "iwae": dict(objective="iwae"),
    "stl": dict(estimator="stl"),
    "dreg": dict(objective="iwae", estimator="dreg"),
}


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_every_variable_gets_a_finite_gradient_that_is_not_zero(activation, dtype):
    params = make_params(dtype, (64, 32))
    _, grads = step.loss_and_gradients(
        infer_with(activation), params, *make_batch(dtype)
    )
    assert_gradients_are_whole(params, grads)


def assert_gradients_are_whole(params, grads):
    named = networks.named_variables(params)
    for (name, variable), grad in zip(named, grads, strict=True):
        assert grad.shape == variable.shape, name
        assert np.all(np.isfinite(grad)), name
        assert np.any(grad != 0), name


@pytest.mark.parametrize("objective_name", OBJECTIVES)
@pytest.mark.parametrize("model_name", MODELS)
def test_every_model_has_whole_gradients_under_every_objective(
    model_name, objective_name
):
    model, init, y = MODELS[model_name]
    params = init()
    _, grads = step.loss_and_gradients(
        infer_with("tanh", model),
        params,
        *make_batch(),
        y,
        **OBJECTIVES[objective_name],
    )
    assert_gradients_are_whole(params, grads)


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_gradients_agree_with_central_differences(activation):
    """In float64, for every variable: along its gradient, and aslant of it."""
    assert_differences_agree(infer_with(activation), make_params())


@pytest.mark.parametrize("objective_name", ["elbo", "free bits", "iwae"])
@pytest.mark.parametrize("model_name", [*MODELS][1:])
def test_gradients_of_every_model_agree_with_central_differences(
    model_name, objective_name
):
    """stl and dreg are no gradients of their value: see the draws below."""
    model, init, y = MODELS[model_name]
    infer, settings = infer_with("tanh", model), OBJECTIVES[objective_name]
    assert_differences_agree(infer, init(), y, **settings)


def assert_differences_agree(infer, params, y=None, **settings):
    x, noise = make_batch()

    @tf.function
    def value():
        return objective.losses(infer(params, x, noise, y=y), x, **settings).loss

    _, grads = step.loss_and_gradients(infer, params, x, noise, y, **settings)
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
                values.append(value())
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


# --- Estimators -----------------------------------------------------------------------


class Tiny:
    """A model of 6 pixels with 2 latents, whose gradients are drawn many at a time."""

    draws, batch, model, dims = 4000, 2, vae, 2
    x = tf.constant([[1.0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 1]], tf.float64)

    def __init__(self):
        self.keys = networks.matrix_keys(0)
        self.params = {
            "encoder": networks.init_mlp(self.keys, "e", (6, 4), dtype=tf.float64),
            "decoder": networks.init_mlp(self.keys, "d", (2, 6), dtype=tf.float64),
        }

    def draw(self, objective_name, samples):
        """Flattened gradients [draws, parameters]."""
        noise = np.random.default_rng(0).standard_normal(
            [self.draws, samples, self.batch, self.dims]
        )

        @tf.function(jit_compile=True, autograph=False)
        def gradients(noise):
            def one(noise):
                _, grads = step.loss_and_gradients(
                    infer_with("tanh", self.model),
                    self.params,
                    self.x,
                    noise,
                    **OBJECTIVES[objective_name],
                )
                return tf.concat([tf.reshape(g, [-1]) for g in grads], axis=0)

            return tf.map_fn(one, noise)

        return gradients(tf.constant(noise)).numpy()

    def of_encoders(self, grads):
        return grads[:, self.is_encoders(True)]

    def of_decoders(self, grads):
        return grads[:, self.is_encoders(False)]

    def is_encoders(self, wanted: bool):
        named = networks.named_variables(self.params)
        sizes = [variable.shape.num_elements() for _, variable in named]
        return np.repeat(["encoder" in name for name, _ in named], sizes) == wanted


class TinyPair(Tiny):
    """The same with a second layer of 1 latent."""

    model, dims = hierarchical, 3

    def __init__(self):
        super().__init__()
        for name, sizes in {"upper_encoder": (2, 2), "upper_decoder": (1, 4)}.items():
            self.params[name] = networks.init_mlp(
                self.keys, name, sizes, dtype=tf.float64
            )


def assert_unbiased(found, standard):
    """Means agree within the spread of the difference over common draws."""
    difference = found - standard
    error = difference.std(axis=0) / np.sqrt(len(difference)) + 1e-12
    z = difference.mean(axis=0) / error
    assert np.abs(z).max() < 4.5 and np.sqrt(np.mean(z**2)) < 1.7


@pytest.fixture(scope="module", params=[Tiny, TinyPair])
def tiny(request):
    return request.param()


@pytest.mark.parametrize(("estimator", "plain"), [("stl", "elbo"), ("dreg", "iwae")])
def test_gradients_through_the_samples_alone_are_unbiased(tiny, estimator, plain):
    """And the decoder's are the standard ones, draw by draw."""
    found, standard = tiny.draw(estimator, 4), tiny.draw(plain, 4)
    assert_unbiased(found, standard)
    assert not np.allclose(tiny.of_encoders(found), tiny.of_encoders(standard), 1e-3)
    np.testing.assert_allclose(
        tiny.of_decoders(found), tiny.of_decoders(standard), 1e-9, 1e-12
    )


def test_sticking_the_landing_would_be_biased_for_the_iwae_bound(tiny):
    """Why the flags refuse it; it also shows that the test of bias can fail."""
    OBJECTIVES["biased"] = dict(objective="iwae", estimator="stl")
    try:
        found, standard = tiny.draw("biased", 4), tiny.draw("iwae", 4)
    finally:
        del OBJECTIVES["biased"]
    with pytest.raises(AssertionError):
        assert_unbiased(found, standard)


def test_one_sample_makes_dreg_the_sticking_of_the_landing(tiny):
    found, expected = (tiny.draw(name, 1)[:5] for name in ("dreg", "stl"))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_sticking_the_landing_has_no_variance_at_the_true_posterior():
    """With a decoder that ignores z, the prior is the posterior."""
    tiny = Tiny()
    for variable in (
        tiny.params["decoder"]["output"]["w"],
        *tf.nest.flatten(tiny.params["encoder"]),
    ):
        variable.assign(tf.zeros_like(variable))
    tiny.draws = 50
    np.testing.assert_allclose(tiny.of_encoders(tiny.draw("stl", 1)), 0, atol=1e-12)
    iwae = tiny.of_encoders(tiny.draw("iwae", 1))
    assert iwae.std() > 0.01


# --- Blocks ---------------------------------------------------------------------------


def make_block(jit, learning_rate=1e-3, clip_norm=0.0):
    """(state, train_block, what of its arguments stays the same)."""
    images = tf.constant(np.random.default_rng(0).integers(0, 2, [72, 784]), tf.uint8)
    state = step.init_state(vae.init(0, (16,), LATENT, 0.13))

    def gradients(params, x, noise, y, at):
        return step.loss_and_gradients(infer_with("relu"), params, x, noise, y)

    train_step = step.make_train_step(
        gradients,
        lambda t: learning_rate,
        **dict(beta1=0.9, beta2=0.999, epsilon=1e-8),
        clip_norm=clip_norm,
    )
    to_batch = functools.partial(batches.to_batch, binarization="static")
    train_block = step.make_train_block(state, train_step, to_batch, jit)
    order = batches.epoch_order(0, 0, 72, BATCH)
    return state, train_block, (images, tf.zeros([72], tf.uint8), order)


@functools.cache
def train(block_lengths, jit, **settings):
    """(final state as arrays, tracing count) after 12 steps in such blocks."""
    state, train_block, data = make_block(jit, **settings)
    draw_noise = step.make_draw_noise(0, 12, [1, BATCH, LATENT])
    done = 0
    for count in block_lengths:
        noise = draw_noise(tf.constant(done))
        train_block(*data, noise, tf.constant(done), tf.constant(count))
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
    whole, _ = train((12,), jit)
    parts, traces = train((5, 0, 6, 1), jit)
    assert traces == 1
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)


@pytest.mark.parametrize("samples", [1, 3])
def test_xla_copies_no_weights_and_computes_no_gradient_twice(samples):
    """Of the size of the logits, a step of 72 images makes those and their gradient."""
    _, train_block, (images, labels, order) = make_block(jit=True)
    noise, order = tf.zeros([1, samples, 72, LATENT]), tf.reshape(order, [1, 72])
    compiled = train_block.experimental_get_compiler_ir(
        images, labels, order, noise, tf.constant(0), tf.constant(1)
    )
    made = re.findall(
        r" = (f32\[[\d,]+\])\S* (copy|dot|fusion)\(", compiled(stage="optimized_hlo")
    )
    assert not [shape for shape, kind in made if kind == "copy" and "," in shape]
    large = f"f32[{samples * 72},784]", f"f32[{samples},72,784]"
    kinds = sorted(kind for shape, kind in made if shape in large)
    assert kinds == ["dot", "fusion"] + ["fusion"] * (samples == 1)  # that is x


def test_eager_graph_and_xla_agree():
    """Within float32 rounding, carried through twelve steps of Adam."""
    graph, _ = train((12,), jit=False)
    xla, _ = train((12,), jit=True)
    tf.config.run_functions_eagerly(True)
    try:
        eager, _ = train.__wrapped__((12,), jit=False)
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
        adam.apply(state, grads, 1e-3, 0.9, 0.999, 1e-8)
        totals += [*losses, np.sqrt(sum(np.sum(g.numpy() ** 2) for g in grads))]
    found, _ = train((12,), jit=False)
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
    arrays, _ = train((12,), jit, learning_rate=1e30)
    assert 1 < arrays["step"] < 12


def test_clipping_bounds_what_the_step_sees():
    free, _ = train((1,), jit=False)
    clipped, _ = train((1,), jit=False, clip_norm=1e-3)
    name = "m/decoder/output/w"
    assert free["totals"][3] == clipped["totals"][3] > 1  # the norm before clipping
    scale = 1e-3 / free["totals"][3]
    np.testing.assert_allclose(clipped[name], scale * free[name], 1e-5, 1e-12)
