import numpy as np
import tensorflow as tf

from core import networks


def test_mlp_is_matrix_products_with_activations_between():
    layers = networks.init_mlp(0, "net", (5, 4, 3), 0, bias=0.5, dtype=tf.float64)
    x = np.random.default_rng(0).standard_normal([2, 7, 5])
    hidden = np.tanh(x @ layers["dense_0"]["w"].numpy() + layers["dense_0"]["b"])
    expected = hidden @ layers["output"]["w"].numpy() + 0.5
    np.testing.assert_allclose(networks.mlp(layers, x, tf.tanh), expected, rtol=1e-12)


def test_weights_are_glorot_uniform():
    w = networks.init_mlp(0, "net", (300, 200), 0)["output"]["w"].numpy()
    limit = np.sqrt(6 / 500)
    assert 0.99 * limit < np.abs(w).max() <= limit
    assert abs(w.mean()) < 0.01 * limit
    assert abs(w.var() / (limit**2 / 3) - 1) < 0.02


def test_every_matrix_has_a_key_of_its_own():
    nets = [
        networks.init_mlp(0, "a", (4, 4, 4), 0),
        networks.init_mlp(0, "b", (4, 4), 2),
    ]
    starts = {float(layer["w"][0, 0]) for net in nets for layer in net.values()}
    assert len(starts) == 3
    again = networks.init_mlp(0, "a", (4, 4, 4), 0)
    np.testing.assert_array_equal(again["output"]["w"], nets[0]["output"]["w"])


def test_names_are_in_the_order_of_the_gradients():
    params = {
        "b": networks.init_mlp(0, "b", (3,) * 13, 0),
        "a": {"w": tf.Variable(1.0)},
    }
    named = networks.named_variables(params)
    assert named[0][0] == "a/w" and "b/dense_10/w" in dict(named)
    flat = tf.nest.flatten(params)
    assert len(named) == len(flat) == 25
    for (name, variable), other in zip(named, flat, strict=True):
        assert variable is other
        assert name == "a/w" or variable.name == f"{name}:0"
