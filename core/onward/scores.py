"""How near samples come to test images, in the features of a small classifier.

It is trained here, a function of the seed and the data: numbers compare within this
project alone. Every set of images is scored twice, as binarized draws and grey.
"""

import os

import numpy as np
import tensorflow as tf

from core import rng
from core.data import batches, binarization
from core.data.digits import CLASSES, PIXELS, SIDE
from core.errors import UserError
from core.model import networks
from core.onward import steps
from core.progress import say
from core.run import files
from core.run.open import open_run
from core.settings import Adam, Run, Settings, Training
from core.show import figures
from core.training import state as states

SAMPLES = 10_000  # of each set
CLASSIFIER = Settings(training=Training(16, 100), adam=Adam(1e-3, ema_decay=0.99))
NEIGHBOR = 3  # whose distance is a radius, for precision and recall
CHUNK = 1000  # images at a time: bounds the memory
ROW = "{:22}" + 2 * "{:>11}{:>11}{:>8}" + "\n"


def expect_comparable(data, vaes: dict) -> None:
    """Raise UserError, before anything is trained, if `data` are too few to score by
    (the classifier needs a batch, and a test image as many others as `NEIGHBOR`), or if
    one of the `vaes` was trained on others."""
    train, test = len(data.train.pixels), len(data.test.pixels)
    batch_size = CLASSIFIER.training.batch_size
    if train < batch_size or test <= NEIGHBOR:
        raise UserError(
            f"expected at least {batch_size} training and {NEIGHBOR + 1} test images, "
            f"by which samples are scored, got {train} and {test}"
        )
    for name, (_, _, other, _) in vaes.items():
        if other.record["sha256"] != data.record["sha256"]:
            raise UserError(
                f"--runs: {name} was trained on other data ({other.record['name']}, "
                f"not this {data.record['name']}): name others, or none by --runs="
            )


def features(params, x):
    """x [B, 784] -> [B, 128], by which images are compared."""
    return tf.nn.relu(networks.mlp(params["body"], x, tf.nn.relu))


def train_step(state, batch, adam_settings):
    """A step on the cross-entropy, which it yields [1]."""
    with tf.GradientTape() as tape:
        logits = networks.dense(state.params["head"], features(state.params, batch.x))
        loss = tf.nn.softmax_cross_entropy_with_logits(batch.y, logits)
        loss = tf.reduce_mean(loss)
    steps.learn(state, tape.gradient(loss, state.params), adam_settings)
    return loss[None]


def train(data, seed: int) -> dict:
    """The weights of a classifier 784-512-128-10 of binarized digits."""
    keys, settings = networks.matrix_keys(seed), CLASSIFIER._replace(run=Run(seed=seed))
    body = networks.init_mlp(keys, "body", (PIXELS, 512, 128))
    head = networks.init_layers(keys, "classifier", {"head": (128, CLASSES)})
    state = states.init({"body": body, **head}, settings.adam)
    compiled_block = steps.compiled(train_step, 1)
    for number in range(settings.training.epochs):
        pixels = binarization.epoch_pixels(data.train.pixels, "dynamic", seed, number)
        block = steps.block(data.train._replace(pixels=pixels), settings, number, 1, 1)
        compiled_block(state, block, settings.adam)
    return state.weights


def look_at(params, images) -> np.ndarray:
    """The features [N, 128] of images [N, 784], bool or uint8."""
    parts = (images[i : i + CHUNK] for i in range(0, len(images), CHUNK))
    return np.concatenate([features(params, batches.to_batch(x)[0]) for x in parts])


def frechet_distance(a, b) -> float:
    """|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of means and covariances of
    features [N, F]: Heusel et al. (arXiv 1706.08500), equation (6). The eigenvalues of
    the product are real, and none is below 0."""
    a, b = np.float64(a), np.float64(b)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(cov_a @ cov_b).real, 0))
    apart = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    return float(apart + np.trace(cov_a + cov_b) - 2 * np.sum(roots))


def share_within(a, b) -> float:
    """The share of a [N, F] no farther from some b than that one's third neighbor among
    the b [M, F] is: Kynkaanniemi et al. (arXiv 1904.06991), equation (1). Precision is
    that of samples in test images, recall that of test images in samples."""

    def distances(of):
        for x in np.array_split(of, -(-len(of) // CHUNK)):
            yield np.sum(x * x, 1)[:, None] - 2 * x @ b.T + np.sum(b * b, 1)

    radii = [np.partition(d, NEIGHBOR, axis=1)[:, NEIGHBOR] for d in distances(b)]
    within = [np.any(d <= np.concatenate(radii), axis=1) for d in distances(a)]
    return float(np.mean(np.concatenate(within)))


def noise(seed: int, size: int):
    """N(0, 1) for the samples [10,000, size]."""
    return rng.normal_rows(rng.key(seed, rng.Stream.SAMPLE, 0), 0, (SAMPLES, size))


def open_vaes(runs: str) -> dict:
    """{folder: what `open_run` gives} of the `runs`, joined by commas; those that are
    not there are left out. UserError: one is damaged, or needs labels."""
    vaes = {name: open_run(name) for name in runs.split(",") if os.path.exists(name)}
    for name, (model, *_) in vaes.items():
        if model.conditional:
            raise UserError(f"--runs={name}: expected a run without --conditional")
    return vaes


def report(folder, data, vaes: dict, name: str, drawn, seed: int) -> None:
    """Draw what the model of this name has `drawn` [N, 784] in [0, 1], and score it
    beside training images and the `vaes`; the table is also in scores.txt."""
    rows = np.reshape(drawn[:100], [10, 10, SIDE, SIDE])
    figures.image_rows(folder.path / "figures" / "samples.png", f"By the {name}", rows)
    sets = {"test": data.test.pixels, "training images": data.train.pixels}
    for run, (vae, weights, *_) in vaes.items():
        sets[run] = 255 * tf.sigmoid(vae.sample(weights, noise(seed, vae.noise_size)))
    sets[name], params, seen = 255 * drawn, train(data, seed), {}
    labels = data.test.labels[: min(SAMPLES, len(data.train.labels))]
    key = rng.key(seed, rng.Stream.SAMPLE, 5)  # one: no row depends on the others
    for each, x in sets.items():
        grey = tf.cast(tf.round(x[: len(labels)]), tf.uint8)
        pair = binarization.binarize(grey, key), grey
        seen[each] = [look_at(params, images) for images in pair]
    guesses = [np.argmax(networks.dense(params["head"], x), 1) for x in seen["test"]]
    right = " and ".join(f"{np.mean(y == labels):.2%}" for y in guesses)
    text = f"{len(labels):,} of each, binarized and grey, against test images\n"
    text += ROW.format("", *2 * ("Frechet", "precision", "recall"))
    for each in [*seen][1:]:
        numbers = []
        for a, b in zip(seen[each], seen["test"], strict=True):
            numbers += frechet_distance(a, b), share_within(a, b), share_within(b, a)
        text += ROW.format(each[-22:], *(f"{number:.3f}" for number in numbers))
    text += f"The classifier is right for {right} of the test images.\n"
    text += "Numbers compare within this project alone."
    say(text)
    files.write_whole(folder.path / "scores.txt", text.encode())
