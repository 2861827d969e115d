"""What a trained model reaches on images it was not trained on."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from core import objective, rng

CHUNK = 1000  # images at a time: bounds the memory
ACTIVE_VARIANCE = 0.01


class Evaluation(NamedTuple):
    """Means over images, in nats an image, and the posterior means themselves."""

    negative_elbo: float
    distortion: float
    rate: float
    active_units: int
    z_mean: np.ndarray  # [N, D]


def active_units(z_mean: np.ndarray) -> int:
    """Latent dimensions whose posterior mean varies by more than 0.01 over images.

    Burda et al. (arXiv 1509.00519), section 5.2.
    """
    return int(np.sum(np.var(z_mean, axis=0, dtype=np.float64) > ACTIVE_VARIANCE))


def make_evaluate(infer, params, to_float, seed: int, latent_dim: int):
    """evaluate(pixels uint8 [N, 784], index) -> `Evaluation`.

    One sample of z for each image, the same at every call with the same `index` (it
    numbers the split), so that two epochs differ by their weights alone.
    """

    @tf.function(reduce_retracing=True)
    def evaluate_chunk(pixels, noise):
        x = to_float(pixels)
        inference = infer(params, x, noise[None])
        return (
            tf.reduce_mean(objective.log_likelihood(inference, x), axis=0),
            objective.kl(inference),
            inference.latents[-1].posterior_mean,
        )

    def evaluate(pixels, index: int) -> Evaluation:
        key = rng.key(seed, rng.Stream.EVALUATE, 2 * index + 1)
        noise = rng.normal(key, [len(pixels), latent_dim])
        chunks = [
            evaluate_chunk(pixels[i : i + CHUNK], noise[i : i + CHUNK])
            for i in range(0, len(pixels), CHUNK)
        ]
        log_likelihood, kl, z_mean = map(np.concatenate, zip(*chunks, strict=True))
        distortion = -float(np.mean(log_likelihood, dtype=np.float64))
        rate = float(np.mean(kl, dtype=np.float64))
        return Evaluation(
            distortion + rate, distortion, rate, active_units(z_mean), z_mean
        )

    return evaluate
