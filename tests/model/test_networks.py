import numpy as np
import pytest
import tensorflow as tf

from core.model import networks


def keys(seed=0):
    return networks.matrix_keys(seed)


def test_mlp_is_matrix_products_with_activations_between():
    layers = networks.init_mlp(keys(), "net", (5, 4, 3), 0.5, tf.float64)
    x = np.random.default_rng(0).standard_normal([2, 7, 5])
    hidden = np.tanh(x @ layers["dense_0"]["w"].numpy() + layers["dense_0"]["b"])
    expected = hidden @ layers["output"]["w"].numpy() + 0.5
    np.testing.assert_allclose(networks.mlp(layers, x, tf.tanh), expected, rtol=1e-12)


def test_weights_are_glorot_uniform():
    w = networks.init_mlp(keys(), "net", (300, 200))["output"]["w"].numpy()
    limit = np.sqrt(6 / 500)
    assert 0.99 * limit < np.abs(w).max() <= limit
    assert abs(w.mean()) < 0.01 * limit
    assert abs(w.var() / (limit**2 / 3) - 1) < 0.02


def test_every_matrix_has_a_key_of_its_own():
    drawn = keys()
    nets = [
        networks.init_mlp(drawn, "a", (4, 4, 4)),
        networks.init_mlp(drawn, "b", (4, 4)),
    ]
    starts = {float(layer["w"][0, 0]) for net in nets for layer in net.values()}
    assert len(starts) == 3
    again = networks.init_mlp(keys(), "a", (4, 4, 4))
    np.testing.assert_array_equal(again["output"]["w"], nets[0]["output"]["w"])


def test_names_are_in_the_order_of_the_gradients():
    params = {
        "b": networks.init_mlp(keys(), "b", (3,) * 13),
        "a": {"w": tf.Variable(1.0)},
    }
    named = networks.named_variables(params)
    assert named[0][0] == "a/w" and "b/dense_10/w" in dict(named)
    flat = tf.nest.flatten(params)
    assert len(named) == len(flat) == 25
    for (name, variable), other in zip(named, flat, strict=True):
        assert variable is other
        assert name == "a/w" or variable.name == f"{name}:0"


def test_labels_stand_beside_the_first_layers_input():
    layers = networks.init_mlp(keys(), "net", (5, 3), dtype=tf.float64, classes=10)
    random = np.random.default_rng(0)
    x, y = random.standard_normal([2, 7, 5]), np.eye(10)[random.integers(0, 10, 7)]
    w = layers["output"]["w"].numpy()
    expected = x @ w[:5] + y @ w[5:]
    np.testing.assert_allclose(networks.mlp(layers, x, tf.tanh, y), expected, 1e-12)


def by_hand(image, filters, stride):
    """A convolution of [H, W, inputs] as TensorFlow pads it, one output at a time."""
    side = image.shape[0] // stride
    total = (side - 1) * stride + 3 - image.shape[0]
    padded = np.pad(image, ((total // 2, total - total // 2),) * 2 + ((0, 0),))
    return np.array(
        [
            [
                np.tensordot(
                    padded[stride * i : stride * i + 3, stride * j : stride * j + 3],
                    filters,
                    3,
                )
                for j in range(side)
            ]
            for i in range(side)
        ]
    )


def test_convolutions_are_sums_over_patches():
    shapes = {"output": (3, 3, 2, 3)}
    layer = networks.init_layers(keys(), "conv", shapes, 0.5, tf.float64)["output"]
    x = np.random.default_rng(0).standard_normal([4, 8, 8, 2])
    expected = [by_hand(image, layer["w"].numpy(), 2) + 0.5 for image in x]
    np.testing.assert_allclose(networks.conv(layer, x), expected, rtol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolutions_are_the_adjoint_of_convolutions(stride):
    """<conv(a), b> = <a, conv_transpose(b)>, up to the bias."""
    shapes = {"conv_0": (3, 3, 3, 2)}
    layer = networks.init_layers(keys(), "conv", shapes, 0.5, tf.float64)["conv_0"]
    np.testing.assert_array_equal(layer["b"], [0, 0])  # the bias is the output's alone
    random = np.random.default_rng(0)
    a = random.standard_normal([4, 8, 8, 2])
    b = random.standard_normal([4, 8 // stride, 8 // stride, 3])
    filters = layer["w"].numpy().transpose(0, 1, 3, 2)
    down = np.array([by_hand(image, filters, stride) for image in a])
    up = networks.conv_transpose(layer, tf.constant(b), stride)
    assert np.sum(down * b) == pytest.approx(np.sum(a * up), rel=1e-10)


def test_convolutional_networks_halve_and_double_and_take_labels():
    drawn = keys()
    encoder = networks.init_conv_encoder(drawn, (4, 6), 10, classes=10)
    decoder = networks.init_conv_decoder(drawn, (4, 6), 5, -2.0, classes=10)
    shapes = {name: tuple(v.shape) for name, v in networks.named_variables(encoder)}
    assert shapes["conv_1/w"] == (3, 3, 4, 6) and shapes["output/w"] == (304, 10)
    named = networks.named_variables({"encoder": encoder, "decoder": decoder})
    assert all(variable.name == f"{name}:0" for name, variable in named)
    x, y = tf.random.stateless_uniform([3, 784], [1, 2]), tf.one_hot([1, 2, 3], 10)
    assert networks.encode(encoder, x, tf.nn.relu, y).shape == (3, 10)
    z = tf.random.stateless_normal([2, 3, 5], [1, 2])
    logits = networks.decode(decoder, z, tf.nn.relu, y)
    assert logits.shape == (2, 3, 784)
    one = networks.decode(decoder, z[1, 2:], tf.nn.relu, y[2:])
    np.testing.assert_allclose(logits[1, 2:], one, rtol=1e-5)
    other = networks.decode(decoder, z, tf.nn.relu, tf.one_hot([2, 2, 3], 10))
    changed = np.any(logits != other, axis=(0, 2))
    assert changed.tolist() == [True, False, False]
