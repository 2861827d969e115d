import numpy as np
import pytest
import tensorflow as tf

from core.model import flow, networks, priors

UNITS = 6


def new(dim, layers, dtype=tf.float64, scale=0.5):
    """(prior, its parameters, moved by `scale` from where they begin, its halves)."""
    prior = flow.flow(dim, layers, UNITS, tf.tanh)
    params = prior.init(networks.matrix_keys(0), 0.5, dtype)
    random = np.random.default_rng(0)
    for variable in tf.nest.flatten(params):
        variable.assign_add(scale * random.standard_normal(variable.shape))
    return prior, params, (dim // 2, dim - dim // 2)


def draw(*shape, dtype=tf.float64):
    return tf.constant(np.random.default_rng(1).standard_normal(shape), dtype)


DIMS_AND_LAYERS = pytest.mark.parametrize(
    ("dim", "layers"), [(2, 1), (2, 8), (3, 2), (3, 3), (4, 5), (7, 4)]
)


@DIMS_AND_LAYERS
def test_the_two_directions_invert_each_other(dim, layers):
    """In the precision of a run."""
    prior, params, halves = new(dim, layers, tf.float32, scale=0.3)
    known = (params["prior"], draw(3, 50, dim, dtype=tf.float32), halves, tf.tanh)
    couplings, points, *rest = known
    z = flow.from_noise(*known)
    assert z.shape == points.shape and not np.allclose(z, points, atol=0.1)
    np.testing.assert_array_equal(prior.sample(params, points), z)
    back, _ = flow.to_noise(couplings, z, *rest)
    np.testing.assert_allclose(back, points, rtol=1e-5, atol=1e-5)
    e, _ = flow.to_noise(*known)
    back = flow.from_noise(couplings, e, *rest)
    np.testing.assert_allclose(back, points, rtol=1e-5, atol=1e-5)


@DIMS_AND_LAYERS
def test_its_log_determinant_is_that_of_the_jacobian(dim, layers):
    """And the density is the noise's times that."""
    prior, params, halves = new(dim, layers)
    z = draw(10, dim)
    with tf.GradientTape() as tape:
        tape.watch(z)
        e, log_det = flow.to_noise(params["prior"], z, halves, tf.tanh)
    sign, expected = np.linalg.slogdet(tape.batch_jacobian(e, z))
    np.testing.assert_allclose(log_det, expected, rtol=1e-9, atol=1e-12)
    assert np.all(sign == 1) and np.std(expected) > 0.05
    of_noise = priors.standard(dim).log_prob({}, e)
    np.testing.assert_allclose(prior.log_prob(params, z), of_noise + expected, 1e-9)


@DIMS_AND_LAYERS
def test_it_begins_as_the_standard_normal(dim, layers):
    prior, params, _ = new(dim, layers, scale=0.0)
    z = draw(3, 5, dim)
    np.testing.assert_array_equal(prior.sample(params, z), z)
    expected = priors.standard(dim).log_prob({}, z)
    np.testing.assert_allclose(prior.log_prob(params, z), expected, rtol=1e-12)
    hidden = params["prior"]["coupling_0"]["dense_1"]["w"]
    assert hidden.shape == (UNITS, UNITS) and np.any(hidden != 0)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_halves_take_turns(layers):
    """Of an odd number of dimensions the second has one more."""
    _, params, halves = new(3, layers)
    z = draw(10, 3)
    e, _ = flow.to_noise(params["prior"], z, halves, tf.tanh)
    moved = ~np.all(np.isclose(z, e), axis=0)
    assert halves == (1, 2) and moved.tolist() == [layers == 2, True, True]


def test_the_scale_of_a_coupling_is_bounded():
    """So that no step makes a density of 0 width."""
    _, params, halves = new(4, 1)
    params["prior"]["coupling_0"]["output"]["b"].assign([50.0, -50.0, 0.0, 0.0])
    layers = params["prior"]["coupling_0"]
    log_scale, _ = flow.coupling(layers, draw(10, halves[0]), tf.tanh)
    np.testing.assert_allclose(log_scale, np.tile([1.0, -1.0], [10, 1]), rtol=1e-12)
