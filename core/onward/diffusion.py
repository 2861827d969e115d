"""A diffusion model of a VAE's latents: `python -m core.onward.diffusion`.

Noise is added to z in a thousand levels, and a network learns to tell it: Ho et al.
(arXiv 2006.11239). To take it away level by level leads from noise to z: a prior, whose
draws the VAE decodes. From top to bottom: model, loss, step, loop, pictures.
"""

import math
import sys
from functools import partial

from core.onward import command

DEFAULTS = dict(run_dir="checkpoints/diffusion", epochs=40, hidden_sizes=(512,) * 3)
DEFAULTS |= dict(learning_rate=1e-3, runs="checkpoints/latents,checkpoints/vae20")
FLAGS = "run_dir seed epochs batch_size learning_rate runs"  # the first run's latents
if __name__ == "__main__":
    asked = command.begin(__doc__, DEFAULTS, FLAGS)

import numpy as np
import tensorflow as tf

from core import rng
from core.data import binarization
from core.errors import UserError
from core.evaluation import bounds
from core.model import distributions, networks
from core.onward import scores, steps
from core.run.folder import RunFolder
from core.show import figures, gallery
from core.training import state as states

LEVELS, DDIM_STEPS = 1000, 50  # of noise in training, T; in sampling
WAVES = 16  # that tell the network the level
MEASURES = "loss", "gradient_norm"


def init(settings, dim: int, seed: int, dtype=tf.float32) -> dict:
    """The network from z_t [B, dim] and t to what `predict_noise` makes of it."""
    sizes = dim + 2 * WAVES, *settings.hidden_sizes, dim
    return networks.init_mlp(networks.matrix_keys(seed), "noise", sizes, dtype=dtype)


def scales(t, dtype):
    """What multiplies z_0 and noise in z_t at levels t [B]: [B, 1] each. By a cosine:
    Nichol and Dhariwal (arXiv 2102.09672), equation (17)."""
    angles = (np.arange(LEVELS + 1) / LEVELS + 0.008) / 1.008 * math.pi / 2
    betas = 1 - np.cos(angles[1:]) ** 2 / np.cos(angles[:-1]) ** 2
    share = np.cumprod([1.0, *(1 - np.minimum(betas, 0.999))])  # of z_0, at every level
    share = tf.gather(share, t)[:, None]
    return tf.cast(tf.sqrt(share), dtype), tf.cast(tf.sqrt(1 - share), dtype)


def add_noise(z, t, noise):
    """z_t [B, D], drawn from q(z_t|z_0) at once: Ho et al., equation (4)."""
    of_z, of_noise = scales(t, z.dtype)
    return of_z * z + of_noise * noise


def predict_noise(params, z, t):
    """The noise in z_t [B, D] at levels t [B]: z_t itself, where nothing else is left
    in it, else by the network."""
    of_z, of_noise = scales(t, z.dtype)
    waves = tf.constant(math.pi / 2 / LEVELS * 2.0 ** (np.arange(WAVES) / 2), z.dtype)
    angles = tf.cast(t, z.dtype)[:, None] * waves
    told = tf.concat([z, tf.sin(angles), tf.cos(angles)], axis=1)
    return of_noise * z + of_z * networks.mlp(params, told, tf.nn.gelu)


def lead(predict, z, levels):
    """z [B, D] at the first of some levels -> z at each of them: DDIM, Song et al.
    (arXiv 2010.02502), equation (12) without noise. Levels that rise lead from z_0 to
    its noise."""
    path = [z]
    for t, s in zip(levels[:-1], levels[1:], strict=True):
        t, s = (tf.fill([len(z)], level) for level in (t, s))
        of_z, of_noise = scales(t, z.dtype)
        noise = predict(path[-1], t)
        path.append(add_noise((path[-1] - of_noise * noise) / of_z, s, noise))
    return path


def loss_of(params, z, t, noise):
    """The mean squared error of the predicted noise: Ho et al., equation (14)."""
    error = noise - predict_noise(params, add_noise(z, t, noise), t)
    return tf.reduce_mean(error * error)


def train_step(state, batch, adam_settings):
    """A step, at levels that the last normal number of each row tells -> [2]."""
    noise, last = batch.noise[0, :, :-1], batch.noise[0, :, -1]
    uniform = (1 + tf.math.erf(last / math.sqrt(2))) / 2
    t = tf.clip_by_value(1 + tf.cast(LEVELS * uniform, tf.int32), 1, LEVELS)
    with tf.GradientTape() as tape:
        loss = loss_of(state.params, batch.x, t, noise)
    grads = tape.gradient(loss, state.params)
    return tf.stack([loss, steps.learn(state, grads, adam_settings)])


def latents(model, weights, data, seed: int, epoch: int):
    """z [N, D] in the place of all training images, a new draw of q(z|x) each epoch."""
    images, kind = data.train.pixels, data.binarization
    pixels = binarization.epoch_pixels(images, kind, seed, epoch)
    split = data.train._replace(pixels=pixels)
    found = bounds.posteriors(model, weights, split)
    noise = rng.normal(rng.key(seed, rng.Stream.POSTERIOR, epoch + 1), found[0].shape)
    return split._replace(pixels=distributions.gaussian_sample(*found, noise))


def run(settings, stop) -> None:
    """Train epoch by epoch, the steps of each as one call; then draw, and score."""
    seed = settings.run.seed
    with RunFolder(settings.run) as folder:
        vaes = scores.open_vaes(settings.show.runs)
        first = settings.show.runs.split(",")[0]
        if first not in vaes:
            raise UserError(
                f"--runs={first}: expected a trained VAE first: see README.md"
            )
        (model, weights, data, _), (dim, *_) = vaes[first], vaes[first][0].latent_dims
        scores.expect_comparable(data, vaes)
        # It learns no images, but latents of them by these weights.
        of, by = data.record, states.digest(weights)
        own = {"name": f"{of['name']}'s latents by the weights {by} of {first}"}
        own["sha256"] = f"{of['sha256']} {by}"
        data = data._replace(record=of | own)
        state = states.init(init(settings.model, dim, seed), settings.adam)
        compiled_block = steps.compiled(train_step, len(MEASURES))
        for number in steps.epochs(folder, state, data, settings, stop):
            split = latents(model, weights, data, seed, number)
            block = steps.block(split, settings, number, 1, dim + 1)
            means = compiled_block(state, block, settings.adam)
            steps.keep(folder, settings, MEASURES, means)
        if not stop.signal:
            predict = tf.function(partial(predict_noise, state.weights))
            levels = np.linspace(LEVELS, 0, DDIM_STEPS + 1).round().astype(int).tolist()
            z = lead(predict, scores.noise(seed, dim), levels)
            ten = (tf.stack(z[5::5])[:, i] for i in range(8))
            rows = [gallery.decode(model, weights, each, None) for each in ten]
            path = folder.path / "figures" / "noise_levels.png"
            figures.image_rows(path, "Each row a sample at ten levels, decoded", rows)
            drawn = tf.sigmoid(model.decode(weights, z[-1]))
            scores.report(folder, data, vaes, "diffusion model", drawn, seed)


if __name__ == "__main__":
    sys.exit(command.end(run, asked))
