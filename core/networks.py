"""Create weight matrices and apply them.

Parameters are nested dicts of `tf.Variable`s; their keys are the checkpoint's format,
and joined by "/" they are the names that error messages use.
"""

import itertools
import math

import tensorflow as tf

from core import rng


def init_dense(key, name: str, inputs: int, outputs: int, bias=0.0, dtype=tf.float32):
    """{"w": [inputs, outputs], "b": [outputs]}: Glorot-uniform weights.

    Glorot and Bengio (2010), equation (16): uniform in +-sqrt(6 / (inputs + outputs)).
    """
    limit = math.sqrt(6 / (inputs + outputs))
    w = rng.uniform(key, [inputs, outputs], -limit, limit, dtype)
    b = tf.broadcast_to(tf.cast(bias, dtype), [outputs])
    return {
        "w": tf.Variable(w, name=f"{name}/w"),
        "b": tf.Variable(b, name=f"{name}/b"),
    }


def dense(layer, x):
    """x [..., inputs] -> x w + b [..., outputs]."""
    return tf.tensordot(x, layer["w"], 1) + layer["b"]


def init_mlp(
    seed: int,
    name: str,
    sizes: tuple[int, ...],
    first_index: int,
    bias=0.0,
    dtype=tf.float32,
):
    """One dense layer for each neighboring pair of `sizes`; the last is "output".

    The i-th matrix is drawn with its own key, INIT stream, index first_index + i.
    `bias` is where the output's bias starts; the others start at 0.
    """
    layers, last = {}, len(sizes) - 2
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layer = "output" if i == last else f"dense_{i}"
        layers[layer] = init_dense(
            rng.key(seed, rng.Stream.INIT, first_index + i),
            f"{name}/{layer}",
            inputs,
            outputs,
            bias if i == last else 0.0,
            dtype,
        )
    return layers


def mlp(layers, x, activation):
    """x [..., inputs] through every layer, `activation` between them."""
    for i in range(len(layers) - 1):
        x = activation(dense(layers[f"dense_{i}"], x))
    return dense(layers["output"], x)


def named_variables(params, prefix=""):
    """[("decoder/dense_0/b", variable), ...] in the order of `tf.nest.flatten`."""
    if not isinstance(params, dict):
        return [(prefix, params)]
    return [
        named
        for key, value in sorted(params.items())
        for named in named_variables(value, f"{prefix}/{key}" if prefix else key)
    ]
