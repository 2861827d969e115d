import math

import numpy as np
import pytest
import tensorflow as tf

from core import numerics, settings
from core.model import networks
from core.model.build import build

DENSE = build(settings.Model())
CONV = build(settings.Model(architecture="conv"))


def test_rows_are_all_axes_but_the_last():
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(numerics.as_rows(tf.constant(x)), x.reshape(6, 4))
    np.testing.assert_array_equal(numerics.as_rows(tf.constant(x[0])), x[0])
    np.testing.assert_array_equal(numerics.as_rows(tf.constant(x[0, 0])), x[0, :1])

    @tf.function(input_signature=[tf.TensorSpec([None, None, 4], tf.float64)])
    def of_any_size(x):
        return numerics.as_rows(x)

    np.testing.assert_array_equal(of_any_size(tf.constant(x)), x.reshape(6, 4))


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_sums_are_of_each_row(dtype):
    rows = np.random.default_rng(0).standard_normal([5, 300])
    found = numerics.sum_rows(tf.constant(rows, dtype))
    assert found.dtype == dtype and found.shape == (5,)
    tolerance = 100 * np.finfo(dtype.as_numpy_dtype).eps
    np.testing.assert_allclose(found, rows.sum(1), tolerance, tolerance)


def test_sums_tell_which_row_is_not_finite():
    rows = tf.constant([[1.0, 2.0], [math.nan, 1.0], [math.inf, 1.0]])
    assert np.isfinite(numerics.sum_rows(rows)).tolist() == [True, False, False]


@pytest.mark.parametrize("jit", [False, True])
def test_a_value_after_another_is_the_same_and_waits_for_it(jit):
    """If the other were dropped as irrelevant, its NaN would not show."""
    after = tf.function(numerics.after, jit_compile=jit)
    values = tf.constant([1e-3, 0.0, -7.25, 3e38, 1e-37])
    for other in (0.0, 1.0, -1e38):
        found = after(values, tf.constant(other))
        np.testing.assert_array_equal(found, values)
    assert np.all(np.isnan(after(values, tf.constant(math.nan))))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("model", [DENSE, CONV], ids=["dense", "conv"])
def test_xla_compiles_matrices_unless_asked_not_to(model, gpu, jit, eager, monkeypatch):
    """Convolutions on a GPU alone."""
    monkeypatch.setattr(numerics, "GPU", gpu)
    found = numerics.compiles(model, settings.Run(jit=jit, eager=eager))
    assert found is (jit and not eager and (gpu or model is DENSE))


def test_a_sample_of_convolutions_costs_more():
    assert numerics.sample_cost(DENSE) == 1 < numerics.sample_cost(CONV)


@pytest.mark.parametrize("eager", [False, True])
def test_functions_are_plain_python_within_if_asked(eager):
    seen = []
    function = tf.function(lambda: seen.append(tf.executing_eagerly()))
    with numerics.execution(eager):
        function()
    function()
    assert seen == [eager, False][: 2 if eager else 1]
    assert not tf.config.functions_run_eagerly()


def test_what_was_set_before_is_restored_after_an_error():
    with pytest.raises(ZeroDivisionError), numerics.execution(True):
        raise ZeroDivisionError
    assert not tf.config.functions_run_eagerly()


def test_who_runs_eagerly_already_keeps_doing_so():
    """As a debugger's user who calls `run` expects."""
    tf.config.run_functions_eagerly(True)
    try:
        for eager in (False, True):
            with numerics.execution(eager):
                assert tf.config.functions_run_eagerly()
            assert tf.config.functions_run_eagerly()
    finally:
        tf.config.run_functions_eagerly(False)


def test_matrices_alone_are_rounded_to_bfloat16():
    """To 8 significant bits; a product with them comes back in the bias's type."""
    params = {
        "net": networks.init_mlp(networks.matrix_keys(0), "net", (6, 5, 4), 0.3),
        "conv": networks.init_layers(
            networks.matrix_keys(1), "conv", {"conv_0": (3, 3, 2, 3)}
        ),
    }
    rounded = numerics.in_bfloat16(params)
    tf.nest.assert_same_structure(rounded, params)
    for name, p in networks.named_variables(params):
        found = dict(networks.named_variables(rounded))[name]
        if len(p.shape) == 2:
            assert found.dtype == tf.bfloat16, name
            np.testing.assert_allclose(tf.cast(found, tf.float32), p, rtol=2**-8)
        else:
            assert found.dtype == tf.float32, name
            np.testing.assert_array_equal(found, p)
    x = np.random.default_rng(0).standard_normal([7, 6]).astype(np.float32)
    logits = networks.mlp(rounded["net"], tf.constant(x), tf.tanh)
    assert logits.dtype == tf.float32
    exact = networks.mlp(params["net"], tf.constant(x), tf.tanh)
    np.testing.assert_allclose(logits, exact, atol=0.03)
    assert not np.array_equal(logits, exact)


def test_what_is_rounded_is_a_copy():
    params = {"w": tf.Variable([[1.0]]), "b": tf.Variable([1.0])}
    rounded = numerics.in_bfloat16(params)
    for p in params.values():
        p.assign(2 * p)
    assert float(rounded["w"][0, 0]) == float(rounded["b"][0]) == 1
    assert float(params["w"][0, 0]) == float(params["b"][0]) == 2


def test_products_are_in_full_precision_within_and_as_before_afterwards():
    """Of a GPU; a decorated function has it too."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    decorated = numerics.full_precision()(enabled)
    assert enabled()
    with pytest.raises(KeyError), numerics.full_precision():
        assert not enabled()
        raise KeyError
    assert enabled() and not decorated() and enabled()


def test_the_device_is_named(monkeypatch):
    config = tf.config
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: [])
    assert numerics.device() == "CPU"
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: [kind])
    details = {"device_name": "A card"}
    monkeypatch.setattr(config.experimental, "get_device_details", lambda gpu: details)
    assert numerics.device() == "A card"


@pytest.mark.parametrize("prior", ["mixture", "flow"])
def test_a_learned_prior_is_not_rounded(prior):
    learned = dict(prior=prior, prior_components=3, flow_layers=2, flow_units=4)
    params = build(settings.Model(**learned)).init(0)
    rounded = numerics.in_bfloat16(params)
    tf.nest.assert_same_structure(rounded, params)
    both = map(tf.nest.flatten, (rounded["prior"], params["prior"]))
    for a, b in zip(*both, strict=True):
        assert a.dtype == tf.float32
        np.testing.assert_array_equal(a, b)
    assert rounded["encoder"]["output"]["w"].dtype == tf.bfloat16


@pytest.mark.parametrize("count", [1, 5, 14, 20, 784])
def test_logs_are_summed_by_products_that_do_not_overflow(count):
    factors = 1 + np.random.default_rng(0).random([3, count])
    factors[1], factors[2] = 1.0, 2.0
    expected = np.sum(np.log(factors), axis=1)
    found = numerics.sum_logs(tf.constant(factors))
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)
    found = numerics.sum_logs(tf.constant(factors, tf.float32))
    np.testing.assert_allclose(found, expected, rtol=3e-6)


def test_sums_have_the_order_of_the_program_until_it_ends():
    """Also without XLA; and a caller's process stays as it was."""
    options, name = (
        tf.config.optimizer.get_experimental_options,
        "arithmetic_optimization",
    )
    before = options().get(name, True)
    with pytest.raises(KeyError), numerics.execution(False):
        assert options()[name] is False
        raise KeyError
    assert options()[name] is before
