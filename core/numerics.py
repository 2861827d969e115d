"""What XLA and the device want: each trick once, named, with its reason and its gain.

Measured with TensorFlow 2.21, on two cores of a CPU and on an NVIDIA H100. On the CPU
`after`, `as_rows` and `sum_rows` together make a step a tenth faster.
"""

import contextlib
import math

import tensorflow as tf

# --- Sizes ----------------------------------------------------------------------------

GPU = bool(tf.config.list_physical_devices("GPU"))
# Samples in one compiled call, which lasts a second or less: then a stop is seen.
BLOCK_SAMPLES = 1_280_000 if GPU else 12_800
CHUNK = 1000  # samples of z that an evaluation decodes at a time: bounds the memory
TILE = 2000 if GPU else 20  # images that the likelihood's compiled loop sees at once
CALLS = 10  # groups of samples in one call of that loop, for speed alone
TILES = 1 if GPU else 2  # at a time; on a CPU each has a core
UNFUSED = 20  # samples at once without XLA, where every layer stays in memory


def sample_cost(model) -> int:
    """What a sample of a `Model` costs, roughly, where one of a dense model costs 1."""
    return 1 if model.dense else 10


# --- Compilation ----------------------------------------------------------------------


def compiles(model, settings) -> bool:
    """Whether XLA compiles training and -log p(x) under `settings.Run`.

    Matrices yes. Convolutions on a GPU alone, where they are 15 times as fast compiled;
    on a CPU their gradients are 16 times as fast by TensorFlow's own kernels.
    """
    return settings.jit and not settings.eager and (model.dense or GPU)


def device() -> str:
    """The name of what it runs on, as TensorFlow reports it."""
    for gpu in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    return "CPU"


@contextlib.contextmanager
def execution(eager: bool):
    """How each `tf.function` runs within: as plain Python, if `eager`; else, where XLA
    does not compile it, with sums in the order of the program.

    TensorFlow's own optimizer makes one sum of a chain of them, in an order that is
    another in each trace: the rate of a flow then differs in its last bit.
    """
    before, optimizer = tf.config.functions_run_eagerly(), tf.config.optimizer
    name, options = "arithmetic_optimization", optimizer.get_experimental_options()
    tf.config.run_functions_eagerly(eager or before)
    optimizer.set_experimental_options({name: False})
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
        optimizer.set_experimental_options({name: options.get(name, True)})


def after(value, other):
    """`value`, computed after `other`, which must be finite.

    0 * other changes no number. Without it XLA could assign a weight before a product
    that needs the old one, and so it copies every weight matrix at each step.
    """
    return value + 0 * other


# --- Shapes ---------------------------------------------------------------------------


def as_rows(x):
    """[..., D] -> [N, D]. With more axes XLA computes the gradient of a layer's output
    twice, in one shape for the weights and in another for the biases."""
    return tf.reshape(x, [-1, x.shape[-1]])


def sum_rows(rows):
    """[N, D] -> [N], as a product with ones. XLA's plain sum of all gradients' squares
    to scalars costs a tenth of a step."""
    return tf.linalg.matvec(rows, tf.ones([rows.shape[1]], rows.dtype))


def sum_logs(factors):
    """[N, D], each in [1, 2] -> the sum of their logarithms [N], as the logarithms of
    products of up to 14, which are at most 2^14. The loop of -log p(x) takes 4 to
    7 % less time by it."""
    count = math.gcd(factors.shape[1], 14)
    by_product = tf.reshape(factors, [-1, factors.shape[1] // count, count])
    return sum_rows(tf.math.log(tf.reduce_prod(by_product, axis=-1)))


# --- Precision ------------------------------------------------------------------------


def in_bfloat16(params):
    """A copy whose matrices, but those of a learned prior, are rounded to 8 significant
    bits: `networks.dense` then multiplies in bfloat16, nearly twice as fast on a
    processor with AVX512_BF16."""

    def rounded(p):
        return tf.cast(p, tf.bfloat16) if p.shape.rank == 2 else tf.identity(p)

    return {
        part: layers if part == "prior" else tf.nest.map_structure(rounded, layers)
        for part, layers in params.items()
    }


@contextlib.contextmanager
def full_precision():
    """Multiply in float32 on a GPU, whose products have 11 significant bits else. By
    those -log p(x) moves by up to 3e-4 nats, and takes three quarters of the time."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
