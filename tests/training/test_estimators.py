"""Estimators of the encoders' gradients: unbiased, and where they differ."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

import loop
from core import settings
from core.data.batches import Batch
from core.model import distributions, hierarchical, networks, priors, terms, vae
from core.model.build import build
from core.training import estimators

OBJECTIVES = {
    "elbo": settings.Objective(),
    "iwae": settings.Objective(objective="iwae"),
    "stl": settings.Objective(estimator="stl"),
    "dreg": settings.Objective(objective="iwae", estimator="dreg"),
    "biased": settings.Objective(objective="iwae", estimator="stl"),
}
UNBIASED = pytest.mark.parametrize(
    ("estimator", "plain"), [("stl", "elbo"), ("dreg", "iwae")]
)


class Tiny:
    """A model of 6 pixels with 2 latents, whose gradients are drawn many at a time."""

    draws, batch, dims, family = 4000, 2, 2, vae
    x = tf.constant([[1.0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 1]], tf.float64)
    settings = settings.Model(latent_dim=2, activation="tanh")

    def __init__(self, **changes):
        self.model = build(dataclasses.replace(self.settings, **changes))
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

        @tf.function(autograph=False)
        def gradients(noise):
            return tf.vectorized_map(partial(self.gradient, objective_name), noise)

        return gradients(tf.constant(noise)).numpy()

    def gradient(self, objective_name, noise):
        """Of all parameters, flattened, for one draw of the noise [K, B, D]."""
        batch = Batch(self.x, None, noise)
        _, grads = loop.loss_and_gradients(
            self.model, self.params, batch, OBJECTIVES[objective_name]
        )
        return tf.concat([tf.reshape(g, [-1]) for g in grads], axis=0)

    def infer_with(self, prior):
        self.model = self.model._replace(
            infer=partial(self.family.infer, activation=tf.tanh, prior=prior),
            prior=prior,
        )

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

    dims, family, upper = 3, hierarchical, 1
    settings = settings.Model(
        stochastic_layers=2, latent_dims=(2, 1), activation="tanh"
    )

    def __init__(self, **changes):
        super().__init__(**changes)
        up, down = (2, 2 * self.upper), (self.upper, 4)
        for name, sizes in {"upper_encoder": up, "upper_decoder": down}.items():
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


@UNBIASED
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
    found, standard = tiny.draw("biased", 4), tiny.draw("iwae", 4)
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


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_xla_gives_the_same_gradients(tiny, estimator):
    noise = tf.constant(
        np.random.default_rng(0).standard_normal([4, tiny.batch, tiny.dims])
    )
    compiled = tf.function(tiny.gradient, jit_compile=True, autograph=False)
    found, expected = compiled(estimator, noise), tiny.gradient(estimator, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_each_encoders_gradient_goes_through_its_samples_alone(tiny, estimator):
    """Of every layer, draw by draw: of sum_k a_k log w_k, where log q(z|x) has its
    weights held fixed; a_k is 1 / K for stl, and (w_k / sum w)^2 for dreg."""
    noise = np.random.default_rng(0).standard_normal([4, tiny.batch, tiny.dims])
    batch = Batch(tiny.x, None, tf.constant(noise))
    fixed = tf.nest.map_structure(lambda p: tf.constant(p.numpy()), tiny.params)

    def log_q(samples):
        """Of [K, B, D] samples of each layer, by the weights as they are."""
        given = tiny.x
        for name, z in zip(tiny.model.encoders, samples, strict=True):
            outputs = networks.mlp(fixed[name], given, tf.tanh)
            density = distributions.gaussian_log_prob(z, *tf.split(outputs, 2, axis=-1))
            yield tf.reduce_sum(density, axis=-1)
            given = z

    with tf.GradientTape() as tape:
        inference = tiny.model.infer(tiny.params, batch.x, batch.noise)
        log_w = terms.log_likelihood(inference, batch.x) + terms.log_prior(inference)
        log_w -= tf.add_n([*log_q([latent.z for latent in inference.latents])])
        shares = tf.nn.softmax(tf.stop_gradient(log_w), axis=0)
        a = 1 / 4 if estimator == "stl" else shares**2
        value = -tf.reduce_mean(tf.reduce_sum(a * log_w, axis=0))
    expected = tf.nest.flatten(tape.gradient(value, tiny.params))
    _, found = loop.loss_and_gradients(
        tiny.model, tiny.params, batch, OBJECTIVES[estimator]
    )
    named = networks.named_variables(tiny.params)
    layers = [name.split("/")[0] for name, _ in named]
    assert {*tiny.model.encoders} == {name for name in layers if "encoder" in name}
    for (name, _), mine, other in zip(named, found, expected, strict=True):
        if "encoder" in name:
            np.testing.assert_allclose(mine, other, 1e-9, 1e-12, err_msg=name)


def test_path_weights_are_the_samples_shares_of_the_bound():
    tiny = Tiny()
    noise = np.random.default_rng(0).standard_normal([4, tiny.batch, tiny.dims])
    inference = tiny.model.infer(tiny.params, tiny.x, tf.constant(noise))
    assert estimators.path_weights(inference, tiny.x, "stl") == 1.0
    found = estimators.path_weights(inference, tiny.x, "dreg")
    assert found.shape == (4, tiny.batch, 1)
    np.testing.assert_allclose(tf.reduce_sum(found, axis=0), np.ones([2, 1]))


# --- A prior that shares an encoder's weights -----------------------------------------


def pseudo_input(params, dim):
    """Mean and log variance of q(z|u) for an image u that stands for all."""
    u = tf.constant([[0.9, 0.1, 0.8, 0.2, 0.7, 0.3]], tf.float64)
    mean, log_var = vae.encode(params, u, activation=tf.tanh)
    return mean[:, :dim] + 0.5, log_var[:, :dim] - 0.5


def shared_log_prob(params, z):
    parameters = pseudo_input(params, z.shape[-1])
    return tf.reduce_sum(distributions.gaussian_log_prob(z, *parameters), axis=-1)


SHARED = priors.Prior(
    init=None,
    log_prob=shared_log_prob,
    sample=None,
    noise_size=0,
    kl=priors.kl_by_samples,
    exact_kl=False,
)


@pytest.fixture(scope="module", params=[Tiny, TinyPair])
def sharing(request):
    """A model whose prior of the upper layer is made by the encoder of the lower."""
    tiny = request.param()
    tiny.infer_with(SHARED)
    return tiny


@UNBIASED
def test_a_prior_may_share_the_encoders_weights(sharing, estimator, plain):
    """log p(z) depends on them directly: that part has the bound's own weight."""
    found, standard = sharing.draw(estimator, 4), sharing.draw(plain, 4)
    assert_unbiased(found, standard)
    assert not np.allclose(
        sharing.of_encoders(found), sharing.of_encoders(standard), 1e-3
    )
    np.testing.assert_allclose(
        sharing.of_decoders(found), sharing.of_decoders(standard), 1e-9, 1e-12
    )


@UNBIASED
def test_without_what_the_prior_shares_the_gradients_would_be_biased(
    sharing, estimator, plain
):
    """As if the prior had no weights: what the test before must be able to see."""
    whole, standard = sharing.model, sharing.draw(plain, 4)
    sharing.model = whole._replace(prior=priors.standard(1))
    try:
        found = sharing.draw(estimator, 4)
    finally:
        sharing.model = whole
    with pytest.raises(AssertionError):
        assert_unbiased(found, standard)


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_what_the_prior_shares_has_the_bounds_own_weight(sharing, estimator):
    """Draw by draw: 1 / K for stl, w_k / sum w for dreg, and not its square."""
    noise = np.random.default_rng(0).standard_normal([4, sharing.batch, sharing.dims])
    batch = Batch(sharing.x, None, tf.constant(noise))
    params, model = sharing.params, sharing.model
    loss_settings = OBJECTIVES[estimator]
    inference = model.infer(params, batch.x, batch.noise)
    log_w = tf.reduce_sum(
        [-latent.log_posterior + latent.log_prior for latent in inference.latents], 0
    )
    logits = inference.logits
    log_w += tf.reduce_sum(batch.x * logits - tf.math.softplus(logits), axis=-1)
    shares = np.exp(log_w) / np.sum(np.exp(log_w), axis=0)
    weights = np.full_like(shares, 1 / 4) if estimator == "stl" else shares
    z = tf.stop_gradient(inference.latents[-1].z)
    with tf.GradientTape() as tape:
        log_prior = shared_log_prob(params, z)
        value = -tf.reduce_mean(tf.reduce_sum(weights * log_prior, axis=0))
    expected = tape.gradient(value, tf.nest.flatten(params["encoder"]))
    _, whole = loop.loss_and_gradients(model, params, batch, loss_settings)
    alone = model._replace(prior=priors.standard(1))
    _, without = loop.loss_and_gradients(alone, params, batch, loss_settings)
    named = [name for name, _ in networks.named_variables(params)]
    found = dict(zip(named, zip(whole, without, strict=True), strict=True))
    for name, direct in zip(("b", "w"), expected, strict=True):
        a, b = found.pop(f"encoder/output/{name}")
        np.testing.assert_allclose(a - b, direct, rtol=1e-9, atol=1e-13)
    for a, b in found.values():
        np.testing.assert_array_equal(a, b)


# --- Learned priors -------------------------------------------------------------------


class TinySquare(TinyPair):
    """The same with a second layer of 2 latents, of which a flow can move one."""

    dims, upper = 4, 2
    settings = dataclasses.replace(TinyPair.settings, latent_dims=(2, 2))


@pytest.fixture(scope="module")
def learned(request):
    """A model with a learned prior, moved from where it begins."""
    family, prior_name = request.param
    sizes = dict(prior_components=3, flow_layers=2, flow_units=3)
    tiny = family(prior=prior_name, **sizes)
    random = np.random.default_rng(1)
    part = tiny.model.prior.init(tiny.keys, 0.5, tf.float64)
    if prior_name == "vamp" and family is Tiny:
        part["prior"]["inputs"] = tf.Variable(tf.zeros([3, 6], tf.float64))
    for variable in tf.nest.flatten(part):
        variable.assign_add(0.5 * random.standard_normal(variable.shape))
    tiny.params |= part
    return tiny


LEARNED = [
    ((family, prior_name), estimator, plain)
    for family in (Tiny, TinySquare)
    for prior_name in ("mixture", "vamp", "flow")
    for estimator, plain in (("stl", "elbo"), ("dreg", "iwae"))
    # These share no weights with an encoder, and take long.
    if not (family is TinySquare and prior_name != "vamp" and estimator == "dreg")
]


@pytest.mark.parametrize(
    ("learned", "estimator", "plain"),
    LEARNED,
    indirect=["learned"],
    ids=[f"{family.__name__}-{name}-{each}" for (family, name), each, _ in LEARNED],
)
def test_the_estimators_are_unbiased_with_a_learned_prior(learned, estimator, plain):
    """And the gradients of the decoder and of the prior's own parameters are the
    standard ones, draw by draw."""
    found, standard = learned.draw(estimator, 4), learned.draw(plain, 4)
    assert_unbiased(found, standard)
    a, b = learned.of_encoders(found), learned.of_encoders(standard)
    assert not np.allclose(a, b, 1e-3)
    a, b = learned.of_decoders(found), learned.of_decoders(standard)
    np.testing.assert_allclose(a, b, 1e-9, 1e-12)
