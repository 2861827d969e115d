"""Seconds for log p(x) by importance sampling: `-m tests.benchmarks.likelihood`.

The program's own estimate, beside a straightforward loop: for each sample one call of a
compiled function over all images. They take turns, each in a process of its own; the
round that compiles is dropped.
"""

import functools
import math

import numpy as np

from tests.benchmarks import floor, report
from tests.benchmarks.compare import OURS, compare
from tests.benchmarks.peers import prepare


def main():
    """One table."""
    arguments = parse()
    count, samples = arguments.images, arguments.samples
    with report.data_folder(arguments.data_dir) as (folder, _, digits):
        report.expect_at_most("--images", count, digits, "test")
        settings = report.network(arguments) | {
            "data_dir": folder,
            "images": count,
            "samples": samples,
        }
        systems = {
            OURS: ("likelihood", "this_project", settings | {"bfloat16": False}),
            "with --bfloat16": (
                "likelihood",
                "this_project",
                settings | {"bfloat16": True},
            ),
            "a call for each sample": ("likelihood", "call_for_each_sample", settings),
        }
        sizes = arguments.hidden_sizes, arguments.latent_dim
        products = floor.likelihood_products(*sizes, count, samples)
        compare(arguments, systems, {}, products, count * samples, "samples")


def parse():
    """The command line."""
    options = report.parser(__doc__, rounds=5)
    report.add_network(options, batches=False)
    shown = "default: %(default)s"
    options.add_argument("--images", type=report.positive, default=200, help=shown)
    options.add_argument("--samples", type=report.positive, default=2000, help=shown)
    return report.parse(options)


# --- What is measured -----------------------------------------------------------------


def prepare_images(images: int, **values):
    """(model, weights, so many binarized test images and labels, settings), new."""
    from core.data import datasets

    model, state, data, settings = prepare(**values)
    split = datasets.fix(data, "test", settings.run.seed)
    some = datasets.Split(*(part[:images] for part in split))
    return model, state.weights, some, settings


def this_project(turns, samples, bfloat16, **values):
    """A worker: the program's estimate."""
    import tensorflow as tf

    from core import rng
    from core.data import datasets
    from core.evaluation import likelihood

    values |= {"importance_samples": samples, "bfloat16": bfloat16}
    *work, settings = prepare_images(**values)
    index = datasets.INDEX["test"]
    key = rng.key(settings.run.seed, rng.Stream.LIKELIHOOD, index)
    tf.function = functools.cache(tf.function)  # the rounds share one compilation

    def estimate():
        tiles = likelihood.log_marginal(*work, key, settings.evaluation, settings.run)
        return {"log p(x)": float(np.mean(np.concatenate(list(tiles))))}

    turns.serve(estimate)


def call_for_each_sample(turns, samples, **values):
    """A worker: the whole model on all images, once for each sample."""
    model, weights, split, _ = prepare_images(**values)
    import tensorflow as tf

    from core.data import batches
    from core.model import terms

    labels = split.labels if model.conditional else None
    x, y = batches.to_batch(split.pixels, labels)
    shape = [1, len(x), sum(model.latent_dims)]

    @tf.function(jit_compile=True)
    def log_weights(noise):
        return terms.log_importance_weights(model.infer(weights, x, noise, y), x)

    def estimate():
        log_w = [log_weights(tf.random.normal(shape)) for _ in range(samples)]
        log_sums = tf.reduce_logsumexp(tf.concat(log_w, axis=0), axis=0)
        return {"log p(x)": float(tf.reduce_mean(log_sums)) - math.log(samples)}

    turns.serve(estimate)


if __name__ == "__main__":
    report.run(main)
