"""The page of a run: figures/report.html, one file that shows what was learned."""

import base64
import math
import shlex
import string
import tempfile
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
import tensorflow as tf

from core import consistency, numerics, rng
from core import settings as settings_of
from core.data.digits import CLASSES, PIXELS, SIDE
from core.evaluation import bounds, surgery
from core.progress import say
from core.run import files, text
from core.show import figures, gallery, report

TEMPLATE = Path(__file__).with_name("page.html")


def make(model, weights, data, folder, run_settings, settings) -> None:
    """Write the page of a run, of the images that `settings.Evaluation` asks for."""
    found = report.measure(model, weights, data, folder, run_settings, settings)
    evaluated, lines, drawings, path = found
    classes = [f"manifold_{label}.png" for label in range(CLASSES)]  # samples tell it
    say("Drawing the page")
    run = settings_of.from_record(folder.recorded["flags"], str(folder.path))
    epochs = f"{folder.epoch} epoch{'s' * (folder.epoch != 1)}"
    about = f"A variational autoencoder, trained for {epochs}."
    plain, values = map(settings_of.values_of, (settings_of.Settings(), run))
    flags = consistency.differences("--{0}={2}", plain, plain, values)
    jit = numerics.compiles(model, run_settings)
    parts = surgery.split_rate(model, weights, evaluated.split, run_settings.seed, jit)
    lines["The rate"] = of_rate(parts, len(evaluated.split.pixels))
    drawings |= more_drawings(model, weights, evaluated)
    pictures = [picture(n, d) for n, d in drawings.items() if n not in classes]
    texts = {
        "title": escape(str(folder.path)),
        "about": escape(f"{about}\n{text.describe(run.model, run.objective, data)}"),
        "command": escape(shlex.join(["python", "loop.py", *flags])),
        "numbers": "\n".join(f"<dt>{k}<dd>{escape(v)}" for k, v in lines.items()),
        "pictures": "\n".join(pictures),
        "versions": escape(
            ", ".join(map(" ".join, folder.recorded["versions"].items()))
        ),
    }
    page = string.Template(TEMPLATE.read_text()).substitute(texts)
    files.write_whole(path / "report.html", page.encode())
    say(f"Page: {path}/report.html")


def picture(name: str, draw) -> str:
    """What draw(path) draws, within the page."""
    with tempfile.TemporaryDirectory() as folder:
        draw(path := Path(folder) / name)
        data = base64.b64encode(path.read_bytes()).decode()
    alt = path.stem.replace("_", " ")
    return f'<div><img alt="{alt}" src="data:image/png;base64,{data}"></div>'


def of_rate(parts, count: int) -> str:
    """What `surgery.split_rate` found of so many images, in a sentence."""
    if parts is None:
        return "is not split for two layers: p(z_1) has no density in closed form"
    information, marginal_kl = parts
    most = " (it is there: more images would show more)"
    return (
        f"is {information:.2f} nats on which image it was, at most log N = "
        f"{math.log(count):.2f}{most * (information > math.log(count) - 0.1)}, and "
        f"{marginal_kl:.2f} of KL(q(z) ‖ p(z)), between all posteriors together and "
        "the prior; by one z an image (Hoffman and Johnson, 2016)"
    )


# --- Pictures that are on the page alone ----------------------------------------------


def more_drawings(model, weights, evaluated) -> dict:
    """{name: function that draws it to a path}, as `gallery.drawings`."""
    loss = evaluated.images["distortion"] + evaluated.images["rate"]
    order = np.argsort(loss, kind="stable")
    found = {
        "best_and_worst": best_and_worst(model, weights, evaluated, loss, order),
        "traversals": traversals(model, weights, evaluated, order[len(order) // 2]),
        "first_layer": first_layer(weights["encoder"]),
    }
    if len(model.latent_dims) == 2:
        found["upper_layer_held"] = upper_held(model, weights, evaluated.record["seed"])
    return {
        f"{name}.png": partial(figures.image_rows, title=title, rows=rows, names=names)
        for name, (title, rows, names) in found.items()
        if len(rows)  # of no active dimension there is no traversal
    }


def best_and_worst(model, weights, evaluated, loss, order):
    """Images of the least, median and greatest loss, [N] of all, over what their
    posterior means decode to."""
    rows, names, count = [], [], min(10, len(order))
    for name, share in (("best", 0), ("median", 0.5), ("worst", 1)):
        few = order[int(share * (len(order) - count)) :][:count]
        labels = evaluated.split.labels.numpy()[few]
        rows.append(gallery.images_of(evaluated.split, few))
        rows.append(gallery.decode(model, weights, evaluated.z_mean[few], labels))
        names += [name, f"{loss[few[0]]:.1f} to {loss[few[-1]]:.1f}"]
    title = f"{evaluated.kind} images by distortion + rate, and reconstructions"
    return title.capitalize(), rows, names


def traversals(model, weights, evaluated, base: int):
    """Active dimensions through 99 % of their posterior means, from those of image
    `base`: in the order of their KL, or of what varies where there is none."""
    z_mean, rows, names = evaluated.z_mean, [], []
    measure = spread = np.var(z_mean, axis=0, dtype=np.float64)
    if model.exact_kl:
        measure = np.array(evaluated.record["kl_per_dim"])
    for d in np.argsort(-measure, kind="stable"):
        if spread[d] > bounds.ACTIVE_VARIANCE:
            line = np.tile(z_mean[base], [10, 1])
            line[:, d] = np.linspace(*np.quantile(z_mean[:, d], [0.005, 0.995]), 10)
            labels = np.repeat(evaluated.split.labels[base], 10)
            rows.append(gallery.decode(model, weights, line, labels))
            names.append(f"$z_{{{d + 1}}}$: {measure[d]:.2f}")
    unit = "KL in nats" if model.exact_kl else "variance of its posterior means"
    lower = " of the lower layer" * (len(model.latent_dims) == 2)
    return f"Each active dimension{lower}, and the {unit}", rows, names


def upper_held(model, weights, seed: int):
    """A draw of the upper layer a row, with ten draws of the lower; a class a row, if
    the model is conditional."""
    lower, width = model.latent_dims[0], model.noise_size
    noise = rng.normal(rng.key(seed, rng.Stream.SAMPLE, 3), [CLASSES, 10, width])
    held = tf.repeat(noise[:, :1, lower:], 10, axis=1)
    noise = tf.reshape(tf.concat([noise[..., :lower], held], -1), [-1, width])
    y = gallery.one_hot(model, np.repeat(np.arange(CLASSES), 10))
    digits = gallery.pixel_means(model.sample(weights, noise, y))
    title = "A row: z_2 is held, and z_1 is drawn anew"
    return title, digits.reshape(CLASSES, 10, SIDE, SIDE), ()


def first_layer(layers):
    """The encoder's weights of greatest norm, [28, 28] each, or its filters, [3, 3]."""
    if "dense_0" in layers:
        w = layers["dense_0"]["w"].numpy()[:PIXELS].T.reshape(-1, SIDE, SIDE)
    else:
        w = np.kron(layers["conv_0"]["w"].numpy()[:, :, 0].T, np.ones([9, 9]))
        w = np.pad(w.transpose(0, 2, 1), ((0, 0), (0, 1), (0, 1)))
    norms = np.linalg.norm(w, axis=(1, 2))
    w = w[np.argsort(-norms, kind="stable")[:60]]
    shown = 0.5 + 0.5 * w / np.abs(w).max(axis=(1, 2), keepdims=True)
    rows = np.split(shown, range(10, len(w), 10))
    return "First-layer weights of the encoder: dark where ink raises a unit", rows, ()
