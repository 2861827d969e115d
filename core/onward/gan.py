"""A generative adversarial network of digits: `python -m core.onward.gan`.

A generator draws, a discriminator tells its digits from those of the training set, and
each learns from the other: Goodfellow et al. (arXiv 1406.2661). There is no encoder, no
likelihood and no bound. From top to bottom: model, losses, step, loop, pictures.
"""

import sys
from typing import NamedTuple

from core.onward import command

DEFAULTS = dict(run_dir="checkpoints/gan", runs="checkpoints/vae20", epochs=40)
DEFAULTS |= dict(batch_size=100, binarization="none", latent_dim=64)
DEFAULTS |= dict(hidden_sizes=(256, 512), learning_rate=1e-3, beta1=0.0, beta2=0.99)
FLAGS = "run_dir seed dataset data_dir validation_size epochs batch_size "
FLAGS += "learning_rate runs"
if __name__ == "__main__":
    asked = command.begin(__doc__, DEFAULTS, FLAGS)

import tensorflow as tf

from core import numerics
from core.data import datasets
from core.data.digits import PIXELS
from core.model import networks
from core.onward import scores, steps
from core.progress import say
from core.run.folder import RunFolder
from core.training import state as states

R1 = 5.0  # weight of the penalty: README.md tells what happens without
MEASURES = "discriminator", "generator", "r1", "gradient_norm"


class Players(NamedTuple):
    """All that training changes."""

    generator: states.TrainState
    discriminator: states.TrainState
    step = property(lambda self: self.generator.step)


def init(settings, adam_settings, seed: int, dtype=tf.float32) -> Players:
    """z -> x, and x -> a logit through the same sizes backwards."""
    keys, inner = networks.matrix_keys(seed), settings.hidden_sizes
    up, down = (settings.latent_dim, *inner, PIXELS), (PIXELS, *reversed(inner), 1)
    generator = networks.init_mlp(keys, "generator", up, -2.0, dtype)  # ink is rare
    discriminator = networks.init_mlp(keys, "discriminator", down, dtype=dtype)
    return Players(*(states.init(p, adam_settings) for p in (generator, discriminator)))


def draw(generator, z):
    """z [B, D] -> images x [B, 784], grey in [0, 1]."""
    return tf.sigmoid(networks.mlp(generator, z, tf.nn.gelu))


def judge(discriminator, x):
    """x [B, 784] -> the logit [B, 1] of x being real."""
    return networks.mlp(discriminator, x, tf.nn.leaky_relu)


def discriminator_loss(generator, discriminator, x, z):
    """-log of the probability that it is right, of real and of drawn images, and R1,
    the squared slope of its logit at real ones, with its weight: Mescheder et al.
    (arXiv 1801.04406), equation (9) -> both, and their sum."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        real = judge(discriminator, x)
    slope = tape.gradient(real, x)  # each logit is of its own image alone
    drawn = judge(discriminator, draw(generator, z))
    wrong = tf.reduce_mean(tf.nn.softplus(-real) + tf.nn.softplus(drawn))
    r1 = R1 / 2 * tf.reduce_mean(numerics.sum_rows(slope * slope))
    return wrong, r1, wrong + r1


def generator_loss(generator, discriminator, z):
    """-log of the probability that its images pass for real ones: the loss that does
    not saturate, of section 3 of Goodfellow et al."""
    return tf.reduce_mean(tf.nn.softplus(-judge(discriminator, draw(generator, z))))


def train_step(players, batch, adam_settings):
    """A step of the discriminator, then one of the generator -> `MEASURES` [4]."""
    (drawer, *_), (judging, *_) = players
    with tf.GradientTape() as tape:
        wrong, r1, loss = discriminator_loss(drawer, judging, batch.x, batch.noise[0])
    grads = tape.gradient(loss, judging)
    norm = steps.learn(players.discriminator, grads, adam_settings)
    with tf.GradientTape() as tape:
        loss = generator_loss(drawer, judging, batch.noise[1])
    grads = tape.gradient(loss, drawer)
    norm += steps.learn(players.generator, grads, adam_settings)
    return tf.stack([wrong, loss, r1, norm])


def run(settings, stop) -> None:
    """Train epoch by epoch, the steps of each as one call; then draw, and score."""
    seed, dim = settings.run.seed, settings.model.latent_dim
    with RunFolder(settings.run) as folder:
        data = datasets.load(folder.data_settings(settings.data), say)
        vaes = scores.open_vaes(settings.show.runs)
        scores.expect_comparable(data, vaes)
        players = init(settings.model, settings.adam, seed)
        compiled_block = steps.compiled(train_step, len(MEASURES))
        for number in steps.epochs(folder, players, data, settings, stop):
            block = steps.block(data.train, settings, number, 2, dim)
            means = compiled_block(players, block, settings.adam)
            steps.keep(folder, settings, MEASURES, means)
        if not stop.signal:
            drawn = draw(players.generator.weights, scores.noise(seed, dim))
            scores.report(folder, data, vaes, "GAN", drawn, seed)


if __name__ == "__main__":
    sys.exit(command.end(run, asked))
