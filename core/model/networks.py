"""Create weight matrices and filters, and apply them.

Parameters are nested dicts of `tf.Variable`s, whose keys are the checkpoint's format.
The networks between the image and its latents are dense, or convolutional where they
have a layer "conv_0". Labels y [B, 10], if any, stand beside the input of a network's
first dense layer.
"""

import itertools
import math
from collections.abc import Iterator

import tensorflow as tf

from core import numerics, rng
from core.data.digits import PIXELS, SIDE

KERNEL = (3, 3)  # height and width of a filter
TOP = SIDE // 4  # height and width of an image after two convolutions

ACTIVATIONS = dict(relu=tf.nn.relu, tanh=tf.nn.tanh, gelu=tf.nn.gelu, silu=tf.nn.silu)


# --- Layers ---------------------------------------------------------------------------


def init_layers(keys, name: str, shapes: dict, bias=0.0, dtype=tf.float32):
    """{layer: shape of w} -> {layer: {"w": [..., inputs, outputs], "b": [outputs]}}.

    Glorot and Bengio (2010), equation (16): w is uniform in +-sqrt(6 / (both fans)).
    The biases of the layer "output" start at `bias`, the others at 0.
    """
    layers = {}
    for layer, shape in shapes.items():
        *window, inputs, outputs = shape
        limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
        w = rng.uniform(next(keys), shape, -limit, limit, dtype)
        b = tf.fill([outputs], tf.cast(bias if layer == "output" else 0.0, dtype))
        layers[layer] = {
            "w": tf.Variable(w, name=f"{name}/{layer}/w"),
            "b": tf.Variable(b, name=f"{name}/{layer}/b"),
        }
    return layers


def dense(layer, x):
    """x [N, inputs] -> x w + b [N, outputs], in b's type; the product is in w's."""
    w, b = layer["w"], layer["b"]
    return tf.cast(tf.cast(x, w.dtype) @ w, b.dtype) + b


def conv(layer, x):
    """x [N, H, W, inputs] -> [N, H/2, W/2, outputs]: every other pixel."""
    return tf.nn.conv2d(x, layer["w"], 2, "SAME") + layer["b"]


def conv_transpose(layer, x, stride: int):
    """x [N, H, W, inputs] -> [N, stride H, stride W, outputs]."""
    side, outputs = stride * x.shape[1], layer["b"].shape[0]
    w = tf.transpose(layer["w"], [0, 1, 3, 2])
    shape = [tf.shape(x)[0], side, side, outputs]
    return tf.nn.conv2d_transpose(x, w, shape, stride, "SAME") + layer["b"]


# --- Networks -------------------------------------------------------------------------


def matrix_keys(seed: int) -> Iterator[tf.Tensor]:
    """The keys of a model's matrices, one after the other."""
    return (rng.key(seed, rng.Stream.INIT, i) for i in itertools.count())


def init_mlp(keys, name: str, sizes, bias=0.0, dtype=tf.float32, classes=0):
    """One dense layer for each neighboring pair of `sizes`, the last "output"."""
    pairs = itertools.pairwise((sizes[0] + classes, *sizes[1:]))
    names = [*(f"dense_{i}" for i in range(len(sizes) - 2)), "output"]
    return init_layers(keys, name, dict(zip(names, pairs, strict=True)), bias, dtype)


def mlp(layers, x, activation, y=None):
    """x [..., inputs] -> [..., outputs], with `activation` between the layers."""
    rows = _rows(x, y)
    for i in range(len(layers) - 1):
        rows = activation(dense(layers[f"dense_{i}"], rows))
    return _unrolled(dense(layers["output"], rows), x)


def _rows(x, y):
    """x [..., I] and labels y [B, C], if any, side by side as rows [N, I + C]."""
    if y is not None:
        x = tf.concat([x, y + tf.zeros_like(x[..., :1])], axis=-1)
    return numerics.as_rows(x)


def _unrolled(rows, x):
    """Rows [N, O] with the leading axes of x [..., I] again: [..., O]."""
    return tf.reshape(rows, tf.concat([tf.shape(x)[:-1], [rows.shape[-1]]], axis=0))


def init_conv_encoder(keys, filters, outputs: int, dtype=tf.float32, classes=0):
    """28x28 -> 14x14 -> 7x7 with filters (F0, F1), then a dense layer."""
    first, second = filters
    shapes = {
        "conv_0": (*KERNEL, 1, first),
        "conv_1": (*KERNEL, first, second),
        "output": (TOP**2 * second + classes, outputs),
    }
    return init_layers(keys, "encoder", shapes, dtype=dtype)


def init_conv_decoder(keys, filters, inputs, bias=0.0, dtype=tf.float32, classes=0):
    """A dense layer to 7x7xF0, then with filters F1 and F0 -> 14x14 -> 28x28 -> x."""
    first, second = filters
    shapes = {
        "dense_0": (inputs + classes, TOP**2 * first),
        "conv_0": (*KERNEL, first, second),
        "conv_1": (*KERNEL, second, first),
        "output": (*KERNEL, first, 1),
    }
    return init_layers(keys, "decoder", shapes, bias, dtype)


def encode(layers, x, activation, y=None):
    """x [B, 784] -> [B, outputs], dense or convolutional as the layers are."""
    if "conv_0" not in layers:
        return mlp(layers, x, activation, y)
    image = tf.reshape(x, [-1, SIDE, SIDE, 1])
    for layer in ("conv_0", "conv_1"):
        image = activation(conv(layers[layer], image))
    features = tf.reshape(image, [-1, math.prod(image.shape[1:])])
    return dense(layers["output"], _rows(features, y))


def decode(layers, z, activation, y=None):
    """z [..., inputs] -> logits [..., 784], dense or convolutional."""
    if "conv_0" not in layers:
        return mlp(layers, z, activation, y)
    features = activation(dense(layers["dense_0"], _rows(z, y)))
    image = tf.reshape(features, [-1, TOP, TOP, features.shape[-1] // TOP**2])
    for layer in ("conv_0", "conv_1"):
        image = activation(conv_transpose(layers[layer], image, 2))
    image = conv_transpose(layers["output"], image, 1)
    return _unrolled(tf.reshape(image, [-1, PIXELS]), z)


def named_variables(params, prefix=""):
    """[("decoder/dense_0/b", variable), ...] in the order of `tf.nest.flatten`."""
    if not isinstance(params, dict):
        return [(prefix, params)]
    return [
        named
        for key, value in sorted(params.items())
        for named in named_variables(value, f"{prefix}/{key}" if prefix else key)
    ]
