"""Seconds for log p(x) by importance sampling: `-m tests.benchmarks.likelihood`.

The program's own estimate, beside a straightforward loop: for each sample one call of a
compiled function over all images. They take turns, each in a process of its own; the
round that compiles is dropped.
"""

import math

import numpy as np

from tests.benchmarks import floor, report
from tests.benchmarks.compare import OURS, compare
from tests.benchmarks.peers import make_run


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


def prepare(images: int, **settings):
    """The program's run, new, and so many of its binarized test images and labels."""
    job = make_run(**settings)
    return job, *(part[:images] for part in job.fixed("test"))


def this_project(turns, samples, bfloat16, **settings):
    """A worker: the program's estimate."""
    from core import datasets, evaluate

    job, pixels, labels = prepare(**settings)
    config = job.config
    log_marginal = evaluate.make_log_marginal(
        *(job.infer, job.state.averaged, job.to_batch, config.seed, config.latents),
        *(config.xla, bfloat16),
    )

    def estimate():
        split = pixels, labels, datasets.INDEX["test"]
        log_p = log_marginal(*split, samples, lambda n: None)
        return {"log p(x)": float(np.mean(log_p))}

    turns.serve(estimate)


def call_for_each_sample(turns, samples, **settings):
    """A worker: the whole model on all images, once for each sample."""
    job, pixels, labels = prepare(**settings)
    import tensorflow as tf

    from core import objective

    x, y = job.to_batch(pixels, labels)
    shape = [1, len(x), job.config.latent_dim]

    @tf.function(jit_compile=True)
    def log_weights(noise):
        inference = job.infer(job.state.averaged, x, noise, y=y)
        return objective.log_importance_weights(inference, x)

    def estimate():
        log_w = [log_weights(tf.random.normal(shape)) for _ in range(samples)]
        log_sums = tf.reduce_logsumexp(tf.concat(log_w, axis=0), axis=0)
        return {"log p(x)": float(tf.reduce_mean(log_sums)) - math.log(samples)}

    turns.serve(estimate)


if __name__ == "__main__":
    report.run(main)
