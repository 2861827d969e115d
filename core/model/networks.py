"""Create weight matrices and filters, and apply them.

Parameters are nested dicts of `tf.Variable`s; their keys are the checkpoint's format,
and joined by "/" they are the names that error messages use. The networks between the
image and its latents are dense, or convolutional where they have a layer "conv_0".
Labels y [B, 10], if any, are put beside the input of a network's first dense layer.
"""

import itertools
import math
from collections.abc import Iterator

import tensorflow as tf

from core import numerics, rng
from core.data.digits import PIXELS, SIDE

KERNEL = 3  # height and width of a filter

ACTIVATIONS = {
    "relu": tf.nn.relu,
    "tanh": tf.nn.tanh,
    "gelu": tf.nn.gelu,
    "silu": tf.nn.silu,
}


# --- Layers ---------------------------------------------------------------------------


def init_dense(key, name: str, inputs: int, outputs: int, bias=0.0, dtype=tf.float32):
    """{"w": [inputs, outputs], "b": [outputs]}; the biases start at `bias`."""
    return _init(key, name, [inputs, outputs], bias, dtype)


def init_conv(key, name: str, inputs: int, outputs: int, bias=0.0, dtype=tf.float32):
    """{"w": [3, 3, inputs, outputs], "b": [outputs]}."""
    return _init(key, name, [KERNEL, KERNEL, inputs, outputs], bias, dtype)


def _init(key, name, shape, bias, dtype):
    """Glorot and Bengio (2010), equation (16): uniform in +-sqrt(6 / (both fans))."""
    *window, inputs, outputs = shape
    limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
    w = rng.uniform(key, shape, -limit, limit, dtype)
    b = tf.broadcast_to(tf.cast(bias, dtype), [outputs])
    return {
        "w": tf.Variable(w, name=f"{name}/w"),
        "b": tf.Variable(b, name=f"{name}/b"),
    }


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


def init_mlp(
    keys, name: str, sizes: tuple[int, ...], bias=0.0, dtype=tf.float32, classes=0
):
    """One dense layer for each neighboring pair of `sizes`; the last is "output".

    `bias` is where the output's bias starts; the others start at 0.
    """
    sizes = (sizes[0] + classes, *sizes[1:])
    layers, last = {}, len(sizes) - 2
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layer, b = ("output", bias) if i == last else (f"dense_{i}", 0.0)
        layers[layer] = init_dense(
            next(keys), f"{name}/{layer}", inputs, outputs, b, dtype
        )
    return layers


def mlp(layers, x, activation, y=None):
    """x [..., inputs] through every layer, `activation` between them -> [..., outputs].

    The layers see rows: see `numerics.as_rows`.
    """
    rows = _rows(x, y)
    for i in range(len(layers) - 1):
        rows = activation(dense(layers[f"dense_{i}"], rows))
    return _unrolled(dense(layers["output"], rows), x)


def _rows(x, y=None):
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
    top = (SIDE // 4) ** 2 * second + classes
    return {
        "conv_0": init_conv(next(keys), "encoder/conv_0", 1, first, dtype=dtype),
        "conv_1": init_conv(next(keys), "encoder/conv_1", first, second, dtype=dtype),
        "output": init_dense(next(keys), "encoder/output", top, outputs, dtype=dtype),
    }


def init_conv_decoder(
    keys, filters, inputs: int, bias=0.0, dtype=tf.float32, classes=0
):
    """A dense layer to 7x7xF0, then with filters F1 and F0 -> 14x14 -> 28x28 -> x."""
    first, second = filters
    sizes = inputs + classes, (SIDE // 4) ** 2 * first
    return {
        "dense_0": init_dense(next(keys), "decoder/dense_0", *sizes, dtype=dtype),
        "conv_0": init_conv(next(keys), "decoder/conv_0", first, second, dtype=dtype),
        "conv_1": init_conv(next(keys), "decoder/conv_1", second, first, dtype=dtype),
        "output": init_conv(next(keys), "decoder/output", first, 1, bias, dtype),
    }


def encode(layers, x, activation, y=None):
    """x [B, 784] -> [B, outputs], dense or convolutional as the layers are."""
    if "conv_0" not in layers:
        return mlp(layers, x, activation, y)
    image = tf.reshape(x, [-1, SIDE, SIDE, 1])
    for layer in ("conv_0", "conv_1"):
        image = activation(conv(layers[layer], image))
    features = tf.reshape(image, [-1, image.shape[1] * image.shape[2] * image.shape[3]])
    return dense(layers["output"], _rows(features, y))


def decode(layers, z, activation, y=None):
    """z [..., inputs] -> logits [..., 784], dense or convolutional."""
    if "conv_0" not in layers:
        return mlp(layers, z, activation, y)
    features = activation(dense(layers["dense_0"], _rows(z, y)))
    side = SIDE // 4
    image = tf.reshape(features, [-1, side, side, features.shape[-1] // side**2])
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
