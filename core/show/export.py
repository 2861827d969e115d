"""--mode=export: a trained model for programs that do not have this one."""

import dataclasses
import inspect
import os
import shutil
from pathlib import Path

import tensorflow as tf

from core import rng
from core.data import batches, datasets
from core.data.digits import CLASSES, PIXELS, SIDE
from core.errors import UserError
from core.model import networks, terms
from core.progress import say
from core.run import files

README = Path(__file__).with_name("export.md")
SPECS = {  # shape, None for any, and type of each input
    **dict.fromkeys(("images", "z"), (None, tf.float32)),
    **dict.fromkeys(("count", "num_samples", "seed"), ([], tf.int32)),
    "labels": (None, tf.int32),
}
NAMES = {"README.md", "model.json", "saved_model", "weights.npz"}


def export(model, weights, data, folder, run_settings, settings) -> None:
    """Write `export/` in the run's folder, whole or not at all: TensorFlow's
    SavedModel, weights.npz, model.json, and how to use them."""
    del data, run_settings
    target, partial = folder.path / "export", folder.path / "export.partial"
    if {path.name for path in target.glob("*")} not in (set(), NAMES):
        raise UserError(f"{target} holds something else than an export: rename it")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    described = {
        "model": dataclasses.asdict(settings),
        "networks": {name: list(weights[name]) for name in weights if name != "prior"},
        "binarization": folder.recorded["flags"]["binarization"],
        "step": folder.step,
    }
    arrays = {name: v.numpy() for name, v in networks.named_variables(weights)}
    module, made = tf.Module(), functions(model, weights, described["binarization"])
    for name, part in {"weights": weights, **made}.items():
        setattr(module, name, part)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        files.write_arrays(partial / "weights.npz", arrays)
        files.write_json(partial / "model.json", described)
        files.write_whole(partial / "README.md", README.read_bytes())
        tf.saved_model.save(module, f"{partial}/saved_model", made, options)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(partial, target)
    except tf.errors.OpError as error:
        raise UserError(f"{target} cannot be written: {error.message}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"The model after {folder.step:,} steps is in {target}/: see its README.md")


def functions(model, weights, binarization: str) -> dict:
    """{name: function of tensors, which it checks, for any number of images}.

    `labels` are of conditional models alone. Pixels are 0 or 1 but where the model was
    trained on grey ones; a likelihood is always of 0 and 1.
    """

    def encode(images, labels=None):
        x = _pixels(images, binarization != "none")
        mean, log_var = model.encode(weights, x, _one_hot(labels, x))
        return {"mean": mean, "log_var": log_var}

    def decode(z, labels=None):
        z = _rows("z", z, model.latent_dims[0])
        return _pixel_means(model.decode(weights, z, _one_hot(labels, z)))

    def reconstruct(images, labels=None):
        return decode(encode(images, labels)["mean"], labels)

    def sample(count, seed, labels=None):
        count = _expect(count >= 0, count, "count: expected >= 0", count)
        key = rng.key(seed, rng.Stream.SAMPLE, 1)  # and so those of --mode=generate
        noise = rng.normal_rows(key, 0, [count, model.noise_size])
        return _pixel_means(model.sample(weights, noise, _one_hot(labels, noise)))

    def log_likelihood(images, num_samples, seed, labels=None):
        x, n = _pixels(images, True), num_samples
        y, n = _one_hot(labels, x), _expect(n > 0, n, "num_samples: expected > 0", n)
        key = rng.key(seed, rng.Stream.LIKELIHOOD, datasets.INDEX["own"])
        return {"log_likelihood": log_marginal(model, weights, x, y, n, key)}

    made = {}
    for function in (encode, decode, reconstruct, sample, log_likelihood):
        names = [*inspect.signature(function).parameters]
        names = names if model.conditional else names[:-1]
        specs = [tf.TensorSpec(*SPECS[name], name) for name in names]
        made[function.__name__] = tf.function(function, specs, autograph=False)
    return made


def log_marginal(model, weights, x, y, num_samples, key):
    """log p(x) in nats, [B], as in `likelihood`; here num_samples is a tensor."""
    shape = [1, tf.shape(x)[0], sum(model.latent_dims)]

    def log_w(i):
        inference = model.infer(weights, x, rng.normal(rng.fold(key, i), shape), y)
        return terms.log_importance_weights(inference, x)[0]

    log_ws = tf.map_fn(log_w, tf.range(num_samples), fn_output_signature=tf.float32)
    log_sum = tf.reduce_logsumexp(log_ws, axis=0)
    return log_sum - tf.math.log(tf.cast(num_samples, tf.float32))


def _expect(holds, value, message: str, got):
    with tf.control_dependencies([tf.debugging.Assert(holds, [message, got])]):
        return tf.identity(value)


def _rows(name: str, values, size: int):
    shape = tf.shape(values)
    fit = tf.size(values) == tf.reduce_prod(shape[:1]) * size
    message = f"{name}: expected [N, ...] of {size} numbers each, got the shape"
    return tf.reshape(_expect(fit, values, message, shape), [-1, size])


def _pixels(images, binary: bool):
    x = _rows("images", images, PIXELS)
    works = (x == 0) | (x == 1) if binary else (x >= 0) & (x <= 1)
    wanted = "of 0 and 1 alone, as by images >= 0.5" if binary else "from 0 to 1"
    ends = tf.stack([tf.reduce_min(x), tf.reduce_max(x)])
    message = f"images: expected pixels {wanted}, got from and to"
    return _expect(tf.reduce_all(works), x, message, ends)


def _one_hot(labels, beside):
    if labels is None:
        return None
    works = tf.reduce_all((labels >= 0) & (labels < CLASSES))
    works &= tf.size(labels) == tf.shape(beside)[0]
    message = f"labels: expected one from 0 to {CLASSES - 1} for each, got"
    return batches.one_hot(tf.reshape(_expect(works, labels, message, labels), [-1]))


def _pixel_means(logits) -> dict:
    logits = tf.reshape(logits, [-1, SIDE, SIDE])
    return {"pixel_means": tf.sigmoid(logits), "logits": logits}
