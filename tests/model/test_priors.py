import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.model import priors
from core.model.build import build

D = 3
SIZES = dict(hidden_sizes=(5,), upper_hidden_sizes=(5,), activation="tanh")
SIZES |= dict(prior_components=3, flow_layers=3, flow_units=4)
TWO = dict(stochastic_layers=2, latent_dims=(4, 2))
LEARNED = {
    "mixture": settings.Model(prior="mixture", **SIZES),
    "vamp": settings.Model(prior="vamp", **SIZES),
    "vamp of two layers": settings.Model(prior="vamp", **SIZES, **TWO),
    "flow": settings.Model(prior="flow", **SIZES),
}


@pytest.fixture
def prior():
    return priors.standard(D)


def test_the_standard_prior_is_a_product_of_standard_normals(prior):
    z = np.random.default_rng(0).standard_normal([4, 2, D])
    expected = np.sum(-0.5 * z**2 - 0.5 * np.log(2 * np.pi), axis=-1)
    found = prior.log_prob({}, tf.constant(z))
    assert found.shape == (4, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_densities_have_the_type_of_the_samples(prior, dtype):
    z = tf.ones([4, 2, D], dtype)
    assert prior.log_prob({}, z).dtype == dtype
    assert prior.kl(z, z, z[..., 0]).dtype == dtype
    assert prior.sample({}, z).dtype == dtype


@pytest.mark.parametrize(
    "shape", [(1, 2, D), (4, 2, D)], ids=["one layer", "two layers"]
)
def test_the_kl_is_in_closed_form_for_each_dimension(prior, shape):
    random = np.random.default_rng(0)
    mean, log_var = random.standard_normal([2, *shape])
    ratio = tf.constant(random.standard_normal([4, 2]))
    found = prior.kl(tf.constant(mean), tf.constant(log_var), ratio)
    assert prior.exact_kl and found.shape == shape
    expected = (mean**2 + np.exp(log_var) - 1 - log_var) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_kl_is_what_the_density_says_of_samples(prior):
    """The mean of log q - log p over samples of q, which `log_prob` gives."""
    random = np.random.default_rng(0)
    mean, log_var = random.standard_normal([2, 1, D])
    z = mean + np.exp(log_var / 2) * random.standard_normal([400_000, 1, D])
    log_q = -0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))
    ratio = log_q.sum(-1) - prior.log_prob({}, tf.constant(z))
    error = ratio.numpy().std() / np.sqrt(len(z))
    kl = prior.kl(tf.constant(mean), tf.constant(log_var), ratio)
    assert np.mean(ratio) == pytest.approx(np.sum(kl), abs=4 * error)


def test_the_standard_prior_has_no_parameters(prior):
    assert prior.init(iter(()), 0.5, tf.float32) == {} and prior.pseudo_inputs is None


def test_a_draw_is_the_noise_itself(prior):
    noise = np.random.default_rng(0).standard_normal([5, prior.noise_size])
    assert prior.noise_size == D
    np.testing.assert_array_equal(prior.sample({}, tf.constant(noise)), noise)


# --- What every learned prior promises ------------------------------------------------


@pytest.fixture(params=LEARNED)
def learned(request):
    """(a prior over two dimensions, parameters that are not its first ones)."""
    model = build(LEARNED[request.param])
    params, random = model.init(0, 0.3, tf.float64), np.random.default_rng(0)
    for variable in tf.nest.flatten(params):
        variable.assign_add(0.3 * random.standard_normal(variable.shape))
    return model.prior, params


def grid_density(prior, params, width=0.05, end=15):
    """The centers of cells that fill [-end, end]^2 [N, N, 2], and p(z) times the cells'
    size [N, N]."""
    axis = np.arange(-end + width / 2, end, width)
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    return z, np.exp(prior.log_prob(params, tf.constant(z))) * width**2


def test_a_learned_density_integrates_to_one(learned):
    _, mass = grid_density(*learned)
    assert mass.sum() == pytest.approx(1, abs=1e-6)


def test_draws_have_the_density(learned):
    """By chi squared over a histogram, of which the cells with fewer than 20 expected
    are one. The limit is four standard deviations (Wilson and Hilferty's cube root),
    which one seed in 30,000 exceeds."""
    prior, params = learned
    draws = 100_000
    z, mass = grid_density(prior, params)
    edges = [np.arange(-15, 15.5, 0.5)] * 2
    noise = np.random.default_rng(1).standard_normal([draws, prior.noise_size])
    samples = prior.sample(params, tf.constant(noise)).numpy()
    found, *_ = np.histogram2d(*samples.T, edges)
    expected, *_ = np.histogram2d(*z.reshape(-1, 2).T, edges, weights=mass.ravel())
    many = expected * draws >= 20
    found, expected = (
        np.append(counts[many], draws - counts[many].sum())
        for counts in (found, draws * expected)
    )
    chi_squared, freedom = np.sum((found - expected) ** 2 / expected), len(found) - 1
    assert freedom > 30
    variance = 2 / (9 * freedom)
    assert np.cbrt(chi_squared / freedom) < 1 - variance + 4 * np.sqrt(variance)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_prior_has_the_parameters_and_types_of_its_model(name, dtype):
    model = build(LEARNED[name])
    params, other = (model.init(seed, 0.3, dtype) for seed in (0, 1))
    assert {p.dtype for p in tf.nest.flatten(params["prior"])} == {dtype}
    pairs = zip(*map(tf.nest.flatten, (params["prior"], other["prior"])), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs)
    z = model.prior.sample(params, tf.ones([4, 5, model.prior.noise_size], dtype))
    assert z.shape == (4, 5, 2) and z.dtype == dtype
    log_p = model.prior.log_prob(params, z)
    assert log_p.shape == (4, 5) and log_p.dtype == dtype
    standard = build(settings.Model(**vars(LEARNED[name]) | {"prior": "standard"}))
    assert standard.init(0).keys() == params.keys() - {"prior"}
    same = {part: params[part] for part in params if part != "prior"}
    both = map(tf.nest.flatten, (standard.init(0, 0.3, dtype), same))
    for a, b in zip(*both, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", LEARNED)
def test_the_kl_of_a_learned_prior_is_one_estimate_for_a_sample(name):
    model = build(LEARNED[name])
    ratio = np.random.default_rng(0).standard_normal([4, 5])
    found = model.prior.kl(None, None, tf.constant(ratio))
    np.testing.assert_array_equal(found, ratio[..., None])
    assert not model.prior.exact_kl and not model.exact_kl
