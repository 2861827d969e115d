"""The floor under a benchmark: the time of its matrix products alone.

They are counted from the shapes, and each is measured by itself in several ways. The
best way's median, times how often the product occurs, is summed.
"""

import os
import statistics
import time
from collections import Counter
from typing import NamedTuple

import numpy as np

from tests.benchmarks.peers import network_sizes

SECONDS = 0.05  # for one product in one way in one round
ROWS = 1000  # of a product in the likelihood's decoder


class Product(NamedTuple):
    """[rows, inner] times [inner, columns]; a transposed one lies in memory so."""

    rows: int
    inner: int
    columns: int
    transpose_a: bool = False
    transpose_b: bool = False

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns


# --- Counting -------------------------------------------------------------------------


def training_products(hidden_sizes, latent_dim, batch_size, num_samples=1) -> Counter:
    """How often each `Product` occurs in one step.

    A layer y = x w has itself, the weights' gradient x' dy, and the input's, dy w',
    which the image does not need.
    """
    found = Counter()
    encoder, decoder = network_sizes(hidden_sizes, latent_dim)
    for sizes, rows in ((encoder, batch_size), (decoder, num_samples * batch_size)):
        for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
            found[Product(rows, inputs, outputs)] += 1
            found[Product(inputs, rows, outputs, transpose_a=True)] += 1
            if i > 0 or sizes is decoder:
                found[Product(rows, outputs, inputs, transpose_b=True)] += 1
    return found


def likelihood_products(hidden_sizes, latent_dim, images, samples) -> Counter:
    """How often each `Product` occurs: every image encoded once, every sample decoded,
    in products of 1,000 rows."""
    found = Counter()
    encoder, decoder = network_sizes(hidden_sizes, latent_dim)
    for inputs, outputs in zip(encoder, encoder[1:], strict=False):
        found[Product(images, inputs, outputs)] += 1
    for inputs, outputs in zip(decoder, decoder[1:], strict=False):
        found[Product(ROWS, inputs, outputs)] += images * samples / ROWS
    return found


def flops(products: Counter) -> float:
    """Floating-point operations: a product and a sum count as two."""
    return sum(product.flops * count for product, count in products.items())


# --- Measuring ------------------------------------------------------------------------


def measure(turns, products):
    """A worker: at each turn, the seconds of every product in every way."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    ways = {**tensorflow_ways(), "numpy": with_numpy}  # its threads stay awake longest
    cases = [(Product(*product), *operands(Product(*product))) for product in products]

    def measure_all():
        seconds = [{} for _ in cases]
        for name, way in ways.items():
            for (product, a, b), found in zip(cases, seconds, strict=True):
                found[name] = time_of(way, product, a, b)
        return {"products": seconds}

    turns.serve(measure_all)


def operands(product: Product):
    """Two float32 arrays that lie in memory as the product's do."""
    random = np.random.default_rng(0)
    rows, inner, columns, transpose_a, transpose_b = product
    a = random.standard_normal([rows, inner], np.float32)
    b = random.standard_normal([inner, columns], np.float32)
    a, b = (a.T if transpose_a else a), (b.T if transpose_b else b)
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def time_of(way, product: Product, a, b) -> float:
    """Seconds of one product, the mean of many in a row."""
    repeat = way(product, a, b)

    def mean(count):
        start = time.perf_counter()
        repeat(count)
        return (time.perf_counter() - start) / count

    mean(2)  # compiles, or wakes the threads
    return mean(max(3, int(SECONDS / mean(3))))


def with_numpy(product: Product, a, b):
    """repeat(count), by NumPy's own library."""
    a, b = (a.T if product.transpose_a else a), (b.T if product.transpose_b else b)
    out = np.empty([product.rows, product.columns], np.float32)

    def repeat(count):
        for _ in range(count):
            np.matmul(a, b, out=out)

    return repeat


def tensorflow_ways() -> dict:
    """The same by TensorFlow's own kernels: an operation at a time, and in a loop."""
    import tensorflow as tf

    def eager(product, a, b):
        a, b = tf.constant(a), tf.constant(b)

        def repeat(count):
            for _ in range(count):
                out = tf.matmul(a, b, *product[3:])
            return out.numpy()

        return repeat

    @tf.function
    def many(a, b, transpose_a, transpose_b, count):
        out = tf.matmul(a, b, transpose_a, transpose_b)
        for i in tf.range(1, count):
            with tf.control_dependencies([i]):  # else one product would serve all turns
                out = tf.matmul(a, b, transpose_a, transpose_b)
        return out

    def loop(product, a, b):
        a, b = tf.constant(a), tf.constant(b)
        return lambda count: many(a, b, *product[3:], tf.constant(count)).numpy()

    return {"eager": eager, "loop": loop}


def fastest(products: Counter, answers: list[dict]) -> list[dict]:
    """For each product: its best way, and that way's median seconds."""
    found = []
    for i, (product, count) in enumerate(products.items()):
        rounds = [answer["products"][i] for answer in answers]
        medians = {
            way: statistics.median(seconds[way] for seconds in rounds)
            for way in rounds[0]
        }
        way = min(medians, key=medians.get)
        rate = product.flops / medians[way] / 1e9
        best = {"way": way, "seconds": medians[way], "gflop_a_second": rate}
        found.append({**product._asdict(), "count": count, **best})
    return found


def seconds(found: list[dict]) -> float:
    """The floor: all products of `fastest`, each as often as it occurs."""
    return sum(product["seconds"] * product["count"] for product in found)
