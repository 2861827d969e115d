"""--mode=encode: where a user's own images lie in the latent space."""

import hashlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from core import numerics
from core.data import batches, binarization, datasets, own
from core.data.digits import FAINT, SWAPPED
from core.errors import UserError
from core.evaluation import bounds
from core.progress import say
from core.run import files
from core.show import gallery


@numerics.full_precision()
def encode(model, weights, data, folder, run_settings, settings) -> None:
    """Write the latents of the images that `settings.Show` names, as .npz in the run's
    folder: mean and log variance of q(z|x) [N, D], names, distortion and rate [N], the
    means of ten draws of z by the same noise for each image."""
    del data  # a trained model needs none
    seed, digit = run_settings.seed, settings.digit
    if model.conditional and digit < 0:
        raise UserError("the run was trained with --conditional: give --digit=CLASS")
    gallery.expect_class(model, folder, digit)
    images, names = own.load(settings.images)
    inks, largest = np.mean(images, axis=(1, 2)) / 255, images.max(axis=(1, 2))
    for text, strange in (
        ("Dark and light may be swapped: ink covers most of", inks > SWAPPED),
        (f"No pixel reaches {FAINT} of 255 in", largest < FAINT),
    ):
        if some := [name for name, is_so in zip(names, strange, strict=True) if is_so]:
            say(f"{text} {', '.join(some[:3])}{', ...' * (len(some) > 3)}.")
    kind = folder.recorded["flags"]["binarization"]
    at = kind, seed, datasets.INDEX["own"]
    pixels = binarization.own_pixels(batches.flatten(images), *at)
    split = datasets.Split(pixels, tf.fill([len(images)], digit))
    found = bounds.evaluate(model, weights, split, "own", seed)
    mean, log_var = bounds.posteriors(model, weights, split)

    digest = hashlib.sha256(images.tobytes() + repr(names).encode()).hexdigest()[:8]
    name = f"{Path(settings.images).stem}_{digest}" + f"_digit{digit}" * (digit >= 0)
    path = folder.path / "latents" / f"{name}_seed{seed}_step{folder.step}.npz"
    latents = dict(mean=mean, log_var=log_var, names=names, **found.images)
    files.write_arrays(path, latents | dict(binarization=kind, seed=seed))
    say(f"{len(names)} images, binarization {kind}, seed {seed}")
    say(f"Distortion {found.distortion:.2f}, rate {found.rate:.2f} nats an image")
    say(f"{', '.join(latents)} in {path}")
