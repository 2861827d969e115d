"""Signal-to-noise ratio of each gradient estimator, layer by layer, against K.

For a trained run: the gradient of one batch's loss is drawn many times, and of every
weight |mean| / standard deviation is taken over the draws; a layer's figure is the
average over its weights (Rainforth et al., arXiv 1802.04537, equation (6)). More
samples make the IWAE bound tighter, and the standard gradient of its encoder noisier;
that is what sticking the landing and the doubly reparameterized gradient exist for.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tqdm

import flags
import loop
from core import checkpoint, networks, rng, step
from tests.benchmarks import report

ESTIMATORS = {
    "elbo, standard": dict(objective="elbo", estimator="standard"),
    "elbo, stl": dict(objective="elbo", estimator="stl"),
    "iwae, standard": dict(objective="iwae", estimator="standard"),
    "iwae, dreg": dict(objective="iwae", estimator="dreg"),
}


def load(run_dir: str, data_dir: str | None):
    """The `loop.Job` in a folder, at its newest checkpoint."""
    recorded = checkpoint.read_config(Path(run_dir))
    if recorded is None:
        raise ValueError(f"{run_dir}: expected the folder of a trained run")
    past = flags.from_record(recorded["flags"], run_dir)
    now = flags.Config(mode="evaluate", run_dir=run_dir, data_dir=data_dir or "")
    given = {"mode", "run_dir"} | ({"data_dir"} if data_dir else set())
    config = flags.settle(now, given, past)
    job = loop.prepare(config, loop.load_data(config, recorded))
    loop.restore(job, recorded)
    return job


def signal_to_noise(job, batch, samples: int, draws: int, settings) -> np.ndarray:
    """The ratio of each variable [V], in the order of `tf.nest.flatten`."""
    x, y = job.to_batch(*batch)
    params = job.state.averaged
    shape = [samples, len(x), sum(job.config.latents)]
    key = rng.key(job.config.seed, rng.Stream.SAMPLE, samples)

    @tf.function(jit_compile=True)
    def draw(noise):
        _, grads = step.loss_and_gradients(job.infer, params, x, noise, y, **settings)
        return grads

    totals = [np.zeros([2, *v.shape]) for v in tf.nest.flatten(params)]
    for i in range(draws):
        for total, grad in zip(
            totals, draw(rng.normal(rng.fold(key, i), shape)), strict=True
        ):
            grad = grad.numpy().astype(np.float64)
            total += [grad, grad**2]
    ratios = []
    for total in totals:
        mean, square = total / draws
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
    job = load(arguments.run_dir, arguments.data_dir)
    batch = [array[: arguments.images] for array in job.fixed("test")]
    names = [name for name, _ in networks.named_variables(job.state.params)]
    found = {}
    cells = [(name, k) for name in ESTIMATORS for k in arguments.samples]
    for name, k in tqdm.tqdm(cells, desc="estimator, K"):
        found[name, k] = signal_to_noise(
            job, batch, k, arguments.rounds, ESTIMATORS[name]
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
    report.write_json(arguments, rows, step=int(job.state.step))


if __name__ == "__main__":
    report.run(main)
