"""Signal-to-noise ratio of each gradient estimator, layer by layer, against K.

For a trained run: the gradient of one batch's loss is drawn many times, and of every
weight |mean| / standard deviation is taken over the draws; a layer's figure is the
average over its weights (Rainforth et al., arXiv 1802.04537, equation (6)). More
samples make the IWAE bound tighter, and the standard gradient of its encoder noisier;
that is what sticking the landing and the doubly reparameterized gradient exist for.
"""

import numpy as np
import tensorflow as tf
import tqdm

import loop
from core import consistency, rng
from core import settings as settings_of
from core.data import batches, datasets
from core.model import networks
from core.model.build import build
from core.run.folder import RunFolder
from core.training import state as states
from tests.benchmarks import report

ESTIMATORS = {
    "elbo, standard": settings_of.Objective(),
    "elbo, stl": settings_of.Objective(estimator="stl"),
    "iwae, standard": settings_of.Objective(objective="iwae"),
    "iwae, dreg": settings_of.Objective(objective="iwae", estimator="dreg"),
}


def load(run_dir: str, data_dir: str | None):
    """(model, state, data, seed) of the run in a folder, at its newest checkpoint."""
    values = {"mode": "evaluate", "run_dir": run_dir}
    values |= {"data_dir": data_dir} if data_dir else {}
    asked = settings_of.of_values(values)
    with RunFolder(asked.run) as folder:
        settings = consistency.going_on(folder.past, asked, set(values))
        data = datasets.load(folder.data_settings(settings.data), print)
        folder.expect_data(data.record)
        model = build(settings.model)
        params = model.init(settings.run.seed)
        state = states.init(params, settings.adam)
        folder.restore(state)
    return model, state, data, settings.run.seed


def signal_to_noise(model, weights, split, samples: int, draws, loss_settings):
    """The ratio of each variable [V], in the order of `tf.nest.flatten`.

    `draws` are as many keys: each gives the noise of one gradient.
    """
    labels = split.labels if model.conditional else None
    x, y = batches.to_batch(split.pixels, labels)
    shape = [samples, len(x), sum(model.latent_dims)]

    @tf.function(jit_compile=True)
    def draw(noise):
        batch = batches.Batch(x, y, noise)
        return loop.loss_and_gradients(model, weights, batch, loss_settings)[1]

    totals = [np.zeros([2, *v.shape]) for v in tf.nest.flatten(weights)]
    for key in draws:
        grads = draw(rng.normal(key, shape))
        for total, grad in zip(totals, grads, strict=True):
            grad = grad.numpy().astype(np.float64)
            total += [grad, grad**2]
    ratios = []
    for total in totals:
        mean, square = total / len(draws)
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        ratios.append(np.mean(np.abs(mean)[deviation > 0] / deviation[deviation > 0]))
    return np.array(ratios)


def main() -> None:
    """Print the table: a row for each estimator and layer, a column for each K."""
    options = report.parser(__doc__, rounds=200)
    options.add_argument("--run_dir", required=True, help="folder of a trained run")
    options.add_argument("--samples", type=report.sizes, default=(1, 5, 50))
    options.add_argument("--images", type=report.positive, default=20)
    arguments = report.parse(options)
    model, state, data, seed = load(arguments.run_dir, arguments.data_dir)
    split = datasets.fix(data, "test", seed)
    some = datasets.Split(*(part[: arguments.images] for part in split))
    names = [name for name, _ in networks.named_variables(state.params)]
    found = {}
    cells = [(name, k) for name in ESTIMATORS for k in arguments.samples]
    for name, k in tqdm.tqdm(cells, desc="estimator, K"):
        key = rng.key(seed, rng.Stream.SAMPLE, k)
        draws = [rng.fold(key, i) for i in range(arguments.rounds)]
        found[name, k] = signal_to_noise(
            model, state.weights, some, k, draws, ESTIMATORS[name]
        )
    rows = [
        {"estimator": name, "weights": weights}
        | {f"K = {k}": float(found[name, k][i]) for k in arguments.samples}
        for name in ESTIMATORS
        for i, weights in enumerate(names)
        if weights.endswith("/w")
    ]
    report.print_table(
        [
            {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()}
            for row in rows
        ]
    )
    report.write_json(arguments, rows, step=int(state.step))


if __name__ == "__main__":
    report.run(main)
