"""A small model in float64, trained by replicas: `python -m tests.replicated OUT RUN
[RUN ...]`, each RUN a JSON of settings, and of the weights' dtype.

Writes OUT-0.npz and so on: weights, step, and how many rows each replica computed. A
process has its devices once: all RUNs of one have the same `logical_cpus`.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import loop
from core import settings as settings_of
from core.data import datasets, synthetic
from core.model.build import build
from core.training import replicas
from core.training import state as states

SMALL = dict(
    hidden_sizes=(8,),
    latent_dim=3,
    activation="tanh",
    objective="iwae",
    num_samples=2,
    estimator="dreg",
    learning_rate_schedule="cosine",
    clip_norm=100.0,
    validation_size=0,
    batch_size=50,
    epochs=4,
    jit=False,
)


def train(dtype="float64", **changes):
    """{name: array} of the weights after 200 steps, and the rows of each replica."""
    rows, gradients = [], loop.loss_and_gradients

    def watched(model, params, batch, *settings):
        rows.append(batch.x.shape[0])
        return gradients(model, params, batch, *settings)

    settings = settings_of.of_values(SMALL | changes)
    with replicas.Team(settings.run) as team:
        sets = synthetic.draw(1, (2500, 20))
        data, model = datasets.split("s", *sets, settings.data), build(settings.model)
        params = model.init(settings.run.seed, 0.13, tf.as_dtype(dtype))
        if not team.chief:  # all that counts comes from the chief
            for variable in tf.nest.flatten(params):
                variable.assign(tf.zeros_like(variable))
        state = states.init(params, settings.adam)
        loop.loss_and_gradients = watched
        try:
            team.share(state, loop.process.NoStop())
            loop.train(model, state, data, settings)
        finally:
            loop.loss_and_gradients = gradients
        flat = tf.nest.flatten(state)
        return {f"{i:02}": v.numpy() for i, v in enumerate(flat)} | {"rows": rows}


if __name__ == "__main__":
    out, *runs = sys.argv[1:]
    for number, text in enumerate(runs):
        np.savez(f"{out}-{number}.npz", **train(**json.loads(text)))
