"""The gradients of every model under every objective: whole, and true."""

import numpy as np
import pytest
import tensorflow as tf

import loop
from core import settings
from core.data.batches import Batch
from core.model import networks, terms
from core.model.build import build
from core.training import objective

BATCH, LATENT = 6, 3
LABELS = tf.one_hot([3, 1, 4, 1, 5, 9], 10, dtype=tf.float64)
ONE = dict(activation="tanh", hidden_sizes=(7,), filters=(2, 3), latent_dim=LATENT)
TWO = ONE | dict(stochastic_layers=2, latent_dims=(2, 1), upper_hidden_sizes=(5,))
CONV = dict(architecture="conv", conditional=True)
LEARNED = dict(prior_components=3, flow_layers=3, flow_units=4)
MODELS = {
    "dense": settings.Model(**ONE | dict(hidden_sizes=(7, 5))),
    "conditional": settings.Model(conditional=True, **ONE),
    "conv": settings.Model(**CONV, **ONE),
    "two layers": settings.Model(**TWO),
    "two conv": settings.Model(**CONV, **TWO),
    "conv vamp": settings.Model(architecture="conv", prior="vamp", **ONE | LEARNED),
}
for prior in ("mixture", "vamp", "flow"):
    MODELS[prior] = settings.Model(prior=prior, **ONE | LEARNED)
    of_two = TWO | LEARNED | dict(prior=prior, latent_dims=(2, 2))
    MODELS[f"two {prior}"] = settings.Model(**of_two)

OBJECTIVES = {  # with the weight of the KL
    "elbo": (settings.Objective(), 1.0),
    "beta": (settings.Objective(), 0.3),
    "free bits": (settings.Objective(free_bits=0.02), 1.0),
    "iwae": (settings.Objective(objective="iwae"), 1.0),
    "stl": (settings.Objective(estimator="stl"), 1.0),
    "dreg": (settings.Objective(objective="iwae", estimator="dreg"), 1.0),
}
ELBO = OBJECTIVES["elbo"]


def with_activation(activation, hidden_sizes=(7, 5)):
    sizes = dict(hidden_sizes=hidden_sizes, latent_dim=LATENT)
    return settings.Model(activation=activation, **sizes)


def make(model_settings, dtype=tf.float64):
    """(model, its parameters, a batch with two samples an image)."""
    model = build(model_settings)
    random = np.random.default_rng(0)
    x = random.integers(0, 2, [BATCH, 784])
    noise = random.standard_normal([2, BATCH, sum(model.latent_dims)])
    y = tf.cast(LABELS, dtype) if model.conditional else None
    batch = Batch(tf.constant(x, dtype), y, tf.constant(noise, dtype))
    params, random = model.init(0, 0.13, dtype), np.random.default_rng(3)
    for variable in tf.nest.flatten(params.get("prior", {})):
        # A flow begins as the identity, when its inner layers have no gradient. By
        # this seed no KL is under the free bits, when it has none either.
        variable.assign_add(tf.constant(random.standard_normal(variable.shape), dtype))
    return model, params, batch


def assert_gradients_are_whole(params, grads):
    named = networks.named_variables(params)
    for (name, variable), grad in zip(named, grads, strict=True):
        assert grad.shape == variable.shape, name
        assert np.all(np.isfinite(grad)), name
        assert np.any(grad != 0), name


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_every_variable_gets_a_finite_gradient_that_is_not_zero(activation, dtype):
    model, params, batch = make(with_activation(activation, (64, 32)), dtype)
    _, grads = loop.loss_and_gradients(model, params, batch, *ELBO)
    assert_gradients_are_whole(params, grads)


@pytest.mark.parametrize("objective_name", OBJECTIVES)
@pytest.mark.parametrize("model_name", MODELS)
def test_every_model_has_whole_gradients_under_every_objective(
    model_name, objective_name
):
    model, params, batch = make(MODELS[model_name])
    _, grads = loop.loss_and_gradients(
        model, params, batch, *OBJECTIVES[objective_name]
    )
    assert_gradients_are_whole(params, grads)


@pytest.mark.parametrize("objective_name", OBJECTIVES)
def test_the_losses_are_the_objectives(objective_name):
    """Whatever the estimator of their gradients."""
    model, params, batch = make(MODELS["two layers"])
    loss_settings, kl_weight = OBJECTIVES[objective_name]
    found, _ = loop.loss_and_gradients(model, params, batch, loss_settings, kl_weight)
    inference = model.infer(params, batch.x, batch.noise)
    expected = objective.losses(inference, batch.x, loss_settings, kl_weight)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_gradients_agree_with_central_differences(activation):
    """In float64, for every variable: along its gradient, and aslant of it."""
    assert_differences_agree(with_activation(activation), *ELBO)


DIFFERENCES = [
    (model_name, objective_name)
    for model_name in [*MODELS][1:]
    for objective_name in ("elbo", "free bits", "iwae")
    if objective_name != "free bits" or MODELS[model_name].prior == "standard"
]


@pytest.mark.parametrize(("model_name", "objective_name"), DIFFERENCES)
def test_gradients_of_every_model_agree_with_central_differences(
    model_name, objective_name
):
    """stl and dreg are no gradients of their value: see the tests of `estimators`."""
    assert_differences_agree(MODELS[model_name], *OBJECTIVES[objective_name])


def assert_differences_agree(model_settings, loss_settings, kl_weight):
    model, params, batch = make(model_settings)

    @tf.function
    def value():
        inference = model.infer(params, batch.x, batch.noise, batch.y)
        return objective.losses(inference, batch.x, loss_settings, kl_weight).loss

    _, grads = loop.loss_and_gradients(model, params, batch, loss_settings, kl_weight)
    random = np.random.default_rng(1)
    for (name, variable), grad in zip(
        networks.named_variables(params), grads, strict=True
    ):
        size = np.linalg.norm(grad)
        uphill = grad.numpy() / size
        for direction in (uphill, random.standard_normal(grad.shape) / 2 + 2 * uphill):
            direction /= np.linalg.norm(direction)
            # A prior's are small beside the rounding of the loss.
            width = 1e-4 if name.startswith("prior") else 1e-5
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
    model, params, batch = make(MODELS["dense"])
    _, grads = loop.loss_and_gradients(model, params, batch, *ELBO)
    grads = tf.nest.pack_sequence_as(params, grads)["decoder"]["output"]
    (latent,), logits = model.infer(params, batch.x, batch.noise)
    error = (tf.sigmoid(logits) - batch.x).numpy() / (2 * BATCH)  # [K, B, 784]
    decoder = params["decoder"]
    hidden = tf.tanh(networks.dense(decoder["dense_0"], latent.z))
    hidden = tf.tanh(networks.dense(decoder["dense_1"], hidden)).numpy()
    np.testing.assert_allclose(grads["b"], error.sum((0, 1)), rtol=1e-10)
    by_hand = np.einsum("kbh,kbp->hp", hidden, error)
    np.testing.assert_allclose(grads["w"], by_hand, rtol=1e-9, atol=1e-14)


def test_gradients_of_the_rate_are_the_formula_by_hand():
    """d KL / d z_mean = z_mean, d KL / d z_log_var = (exp(z_log_var) - 1) / 2."""
    model, params, batch = make(MODELS["dense"])
    with tf.GradientTape() as tape:
        inference = model.infer(params, batch.x, batch.noise)
        rate = tf.reduce_mean(terms.kl(inference))
    bias = params["encoder"]["output"]["b"]
    by_mean, log_var = model.encode(params, batch.x)
    by_log_var = (tf.exp(log_var) - 1) / 2
    by_hand = tf.reduce_mean(tf.concat([by_mean, by_log_var], axis=1), axis=0)
    np.testing.assert_allclose(tape.gradient(rate, bias), by_hand, rtol=1e-10)
