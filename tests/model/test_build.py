import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.model import hierarchical, priors, vae
from core.model.build import build

SMALL = dict(hidden_sizes=(8,), filters=(2, 3), upper_hidden_sizes=(6,))
PRIOR = dict(prior_components=5, flow_layers=2, flow_units=4)
ONE = dict(latent_dim=3, **SMALL)
TWO = dict(stochastic_layers=2, latent_dims=(4, 3), **SMALL)
MODELS = {
    "dense": settings.Model(**ONE),
    "conditional": settings.Model(conditional=True, **ONE),
    "conv": settings.Model(architecture="conv", **ONE),
    "two layers": settings.Model(**TWO),
    "two conv": settings.Model(architecture="conv", conditional=True, **TWO),
    "mixture": settings.Model(prior="mixture", conditional=True, **PRIOR, **ONE),
    "two vamp": settings.Model(prior="vamp", **PRIOR, **TWO),
    "flow": settings.Model(prior="flow", **PRIOR, **ONE),
}


@pytest.fixture(params=MODELS)
def asked(request):
    """The settings of a model of each kind."""
    return MODELS[request.param]


def labels(model, count):
    return tf.one_hot(np.arange(count), 10) if model.conditional else None


def test_the_record_says_what_the_settings_ask_for(asked):
    model = build(asked)
    two = asked.stochastic_layers == 2
    assert model.latent_dims == ((4, 3) if two else (3,))
    chooses = asked.prior in ("mixture", "vamp")
    assert model.noise_size == sum(model.latent_dims) + chooses
    assert model.exact_kl == (asked.prior == "standard" and not two)
    assert model.conditional == asked.conditional
    assert model.dense == (asked.architecture == "dense")
    assert model.encoders == (("encoder", "upper_encoder") if two else ("encoder",))
    assert model.prior.noise_size == 3 + chooses
    assert (model.prior.pseudo_inputs is not None) == (asked.prior == "vamp")
    parts = [*model.encoders, "decoder"] + ["upper_decoder"] * two
    parts += ["prior"] * (asked.prior != "standard")
    assert {*model.init(0)} == {*parts}


def test_every_function_fits_the_parameters_and_what_is_said_of_them(asked):
    model = build(asked)
    params = model.init(0, 0.13)
    dims = model.latent_dims
    x, noise = tf.zeros([5, 784]), tf.ones([2, 5, sum(dims)])
    latents, logits = model.infer(params, x, noise, labels(model, 5))
    assert [latent.z.shape for latent in latents] == [(2, 5, dim) for dim in dims]
    assert logits.shape == (2, 5, 784)
    mean, log_var = model.encode(params, x, labels(model, 5))
    assert mean.shape == log_var.shape == (5, dims[0])
    np.testing.assert_array_equal(mean, latents[0].mean)
    by_hand = model.decode(params, latents[0].z, labels(model, 5))
    np.testing.assert_array_equal(by_hand, logits)
    noise = tf.ones([5, model.noise_size])
    assert model.sample(params, noise, labels(model, 5)).shape == (5, 784)


def test_each_layers_encoder_is_the_part_that_makes_its_samples(asked):
    """From the image upwards; no part of params but these reaches the samples."""
    model = build(asked)
    params = model.init(0, 0.13)
    x, noise = tf.ones([5, 784]), tf.ones([2, 5, sum(model.latent_dims)])
    with tf.GradientTape(persistent=True) as tape:
        latents, _ = model.infer(params, x, noise, labels(model, 5))
    assert len(latents) == len(model.encoders)
    for i, latent in enumerate(latents):
        for j, name in enumerate(model.encoders):
            grads = tf.nest.flatten(tape.gradient(latent.z, params[name]))
            assert [g is not None for g in grads] == [j <= i] * len(grads)
    others = {name: params[name] for name in set(params) - set(model.encoders)}
    for latent in latents:
        assert not any(
            g is not None for g in tf.nest.flatten(tape.gradient(latent.z, others))
        )


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "silu"])
@pytest.mark.parametrize(
    ("family", "sizes"), [(vae, ONE), (hierarchical, TWO)], ids=["one", "two"]
)
def test_the_functions_are_those_of_the_family_with_prior_and_activation(
    family, sizes, activation
):
    asked = settings.Model(activation=activation, **sizes)
    model, prior = build(asked), priors.standard(3)
    params, expected = model.init(5, 0.2, tf.float64), family.init(asked, prior, 5, 0.2)
    for a, b in zip(tf.nest.flatten(params), tf.nest.flatten(expected), strict=True):
        assert a.dtype == tf.float64 and a.name == b.name and a.shape == b.shape
    random = np.random.default_rng(0)
    x = tf.constant(random.integers(0, 2, [5, 784]).astype(float))
    noise = tf.constant(random.standard_normal([2, 5, model.noise_size]))
    known = dict(activation=getattr(tf.nn, activation))
    found = (
        model.infer(params, x, noise),
        model.encode(params, x),
        model.decode(params, noise[..., : model.latent_dims[0]]),
        model.sample(params, noise),
    )
    expected = (
        family.infer(params, x, noise, prior=prior, **known),
        family.encode(params, x, **known),
        family.decode(params, noise[..., : model.latent_dims[0]], **known),
        family.sample(params, noise, prior=prior, **known),
    )
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_compiled_function_is_traced_once_for_a_model():
    """And again for another build of the same: `tf.function` tells them apart."""
    model, other = build(MODELS["dense"]), build(MODELS["dense"])
    traces = []

    @tf.function
    def decode(model, params, z):
        traces.append(model)
        return model.decode(params, z)

    params = model.init(0, 0.13)
    for each in (model, model._replace(), other, model):
        decode(each, params, tf.zeros([1, 3]))
    assert len(traces) == 2
