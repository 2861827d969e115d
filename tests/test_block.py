"""Steps: a block of them as one call, `train_block`, and those of a whole run."""

import functools
import itertools
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import loop
from core import numerics, settings
from core.data import batches
from core.data.batches import Epoch
from core.model import networks
from core.model.build import build
from core.run import metrics
from core.training import adam
from core.training import state as states
from core.training.schedules import Horizon
from tests.conftest import run, small_settings
from tests.runs import timeless

BATCH, LATENT = 6, 3
HORIZON = Horizon(warmup=0, total=12)
PARTS = ("params", "m", "v", "average")


def make_state(adam_settings, **model_settings):
    """(model, a state that has taken no step, an epoch of 12 steps)."""
    sizes = dict(hidden_sizes=(16,), latent_dim=LATENT, activation="relu")
    model = build(settings.Model(**sizes, **model_settings))
    state = states.init(model.init(0, 0.13), adam_settings)
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 2, [72, 784]), tf.bool)
    labels = tf.constant(random.integers(0, 10, [72]), tf.uint8)
    order = batches.epoch_order(0, 0, 72, BATCH)
    return model, state, Epoch(images, labels if model.conditional else None, order)


@functools.cache
def train(block_lengths, jit, **hyper):
    """(final state as arrays, tracing count) after 12 steps in such blocks, each with
    equal settings made anew."""
    model, state, epoch = make_state(settings.Adam(**hyper))
    compiled = tf.function(loop.train_block, jit_compile=jit)
    done, asked = 0, []
    for count in block_lengths:
        noise = batches.noise(0, done, (12, 1, BATCH, LATENT))
        block = batches.block(epoch, done, noise, count)
        asked.append((settings.Objective(), settings.Adam(**hyper), Horizon(*HORIZON)))
        taken, _, _ = compiled(model, state, block, *asked[-1])
        assert int(taken) == count
        done += count
    arrays = {
        f"{part}/{name}": variable.numpy()
        for part in PARTS
        for name, variable in networks.named_variables(getattr(state, part) or {})
    }
    arrays |= {"step": state.step.numpy(), "totals": state.totals.numpy()}
    return arrays, compiled.experimental_get_tracing_count()


@pytest.mark.parametrize("jit", [False, True])
def test_results_do_not_depend_on_how_steps_are_grouped(jit):
    whole, _ = train((12,), jit, ema_decay=0.9)
    parts, traces = train((5, 0, 6, 1), jit, ema_decay=0.9)
    assert traces == 1
    assert set(parts) == set(whole) and whole["step"] == 12
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)


@pytest.mark.parametrize(("samples", "weight_decay"), [(1, 0.0), (1, 0.1), (3, 0.0)])
def test_xla_copies_no_weights_and_computes_no_gradient_twice(samples, weight_decay):
    """Of the size of the logits, a step of 72 images makes those and their gradient."""
    adam_settings = settings.Adam(ema_decay=0.9, weight_decay=weight_decay)
    model, state, epoch = make_state(adam_settings)
    epoch = epoch._replace(order=tf.reshape(epoch.order, [1, 72]))
    block = batches.block(epoch, 0, tf.zeros([1, samples, 72, LATENT]), 1)
    train_block = tf.function(loop.train_block, jit_compile=True)
    compiled = train_block.experimental_get_compiler_ir(
        model, state, block, settings.Objective(), adam_settings, HORIZON
    )
    made = re.findall(
        r" = (f32\[[\d,]+\])\S* (copy|dot|fusion)\(", compiled(stage="optimized_hlo")
    )
    assert not [shape for shape, kind in made if kind == "copy" and "," in shape]
    large = f"f32[{samples * 72},784]", f"f32[{samples},72,784]"
    kinds = sorted(kind for shape, kind in made if shape in large)
    assert kinds == ["dot", "fusion"] + ["fusion"] * (samples == 1)  # that is x


def test_eager_graph_and_xla_agree():
    """Within float32 rounding, carried through twelve steps of Adam."""
    graph, _ = train((12,), False, ema_decay=0.9)
    xla, _ = train((12,), True, ema_decay=0.9)
    with numerics.execution(True):
        eager, _ = train.__wrapped__((12,), False, ema_decay=0.9)
    for name, array in graph.items():
        np.testing.assert_allclose(eager[name], array, 1e-4, 2e-6, err_msg=name)
        np.testing.assert_allclose(xla[name], array, 1e-4, 2e-6, err_msg=name)


class ByHand:
    """Single steps with a warm-up, a cosine and an average, written out in Python."""

    loss_settings = settings.Objective(beta=2.0)
    adam_settings = settings.Adam(
        learning_rate=1e-3, learning_rate_schedule="cosine", ema_decay=0.9
    )
    horizon = Horizon(warmup=8, total=12)

    def __init__(self, conditional):
        made = make_state(self.adam_settings, conditional=conditional)
        self.model, self.state, self.epoch = made
        self.average = [p.numpy() for p in tf.nest.flatten(self.state.params)]
        self.totals = np.zeros(4)

    def step(self, i, noise):
        rows = self.epoch.order.numpy()[i]
        y = None
        if self.model.conditional:
            y = tf.one_hot(self.epoch.labels.numpy()[rows], 10)
        x = tf.constant(self.epoch.pixels.numpy()[rows], tf.float32)
        self.losses, grads = loop.loss_and_gradients(
            self.model,
            self.state.params,
            batches.Batch(x, y, noise),
            self.loss_settings,
            kl_weight=2.0 * min(i / 8, 1.0),
        )
        learning_rate = 1e-3 * 0.5 * (1 + math.cos(math.pi * i / 12))
        adam.apply(self.state, grads, learning_rate, self.adam_settings)
        self.state.step.assign_add(1)
        decay = min(0.9, (2 + i) / (11 + i))
        self.average = [
            decay * average + (1 - decay) * p.numpy()
            for average, p in zip(
                self.average, tf.nest.flatten(self.state.params), strict=True
            )
        ]
        self.squares = [np.sum(g.numpy() ** 2) for g in grads]
        self.totals += [*self.losses, np.sqrt(sum(self.squares))]


@pytest.mark.parametrize("conditional", [False, True])
def test_a_block_is_the_same_as_single_steps_by_hand(conditional):
    """The order's rows, each step's own noise, the schedules, the epoch's totals."""
    by_hand, found = ByHand(conditional), ByHand(conditional)
    noise = batches.noise(0, 0, (12, 1, BATCH, LATENT))
    for i in range(12):
        by_hand.step(i, noise[i])
    state = found.state
    taken, measures, squares = tf.function(loop.train_block)(
        found.model,
        state,
        batches.block(found.epoch, 0, noise, 12),
        found.loss_settings,
        found.adam_settings,
        found.horizon,
    )
    assert int(taken) == int(state.step) == 12
    np.testing.assert_allclose(state.totals, by_hand.totals, rtol=1e-5)
    np.testing.assert_allclose(measures[:3], by_hand.losses, rtol=1e-5)
    np.testing.assert_allclose(measures[3], np.sqrt(sum(squares)), rtol=1e-5)
    np.testing.assert_allclose(squares, by_hand.squares, rtol=1e-3)
    for part, expected in {
        "params": tf.nest.flatten(by_hand.state.params),
        "average": by_hand.average,
    }.items():
        named = networks.named_variables(getattr(state, part))
        for (name, variable), array in zip(named, expected, strict=True):
            np.testing.assert_allclose(variable, array, 1e-4, 2e-6, err_msg=name)


def test_a_block_of_no_steps_changes_nothing():
    """So that training can compile before its clock starts."""
    adam_settings = settings.Adam(ema_decay=0.9)
    model, state, epoch = make_state(adam_settings)
    state.totals.assign([1.0, 2.0, 3.0, 4.0])
    before = [variable.numpy() for variable in tf.nest.flatten(state)]
    noise = batches.noise(0, 0, (12, 1, BATCH, LATENT))
    taken, _, _ = tf.function(loop.train_block)(
        model,
        state,
        batches.block(epoch, 0, noise, 0),
        settings.Objective(),
        adam_settings,
        HORIZON,
    )
    assert int(taken) == 0
    for variable, array in zip(tf.nest.flatten(state), before, strict=True):
        np.testing.assert_array_equal(variable, array)


def test_noise_depends_on_the_step_alone():
    long = batches.noise(3, 10, (8, 1, BATCH, LATENT))
    short = batches.noise(3, 14, (2, 1, BATCH, LATENT))
    np.testing.assert_array_equal(long[4:6], short)
    assert len(np.unique(long)) == long.numpy().size
    other = batches.noise(4, 10, (8, 1, BATCH, LATENT))
    assert not np.array_equal(other, long)


@pytest.mark.parametrize("jit", [False, True])
def test_a_block_stops_at_the_first_step_that_is_not_finite(jit):
    """And tells of that step what it measured."""
    hyper = settings.Adam(learning_rate=1e30)
    model, state, epoch = make_state(hyper)
    noise = batches.noise(0, 0, (12, 1, BATCH, LATENT))
    taken, measures, squares = tf.function(loop.train_block, jit_compile=jit)(
        model,
        state,
        batches.block(epoch, 0, noise, 12),
        settings.Objective(),
        hyper,
        HORIZON,
    )
    assert 1 < int(taken) == int(state.step) < 12
    assert not np.all(np.isfinite(measures)) and not np.all(np.isfinite(squares))


def test_clipping_bounds_what_the_step_sees():
    free, _ = train((1,), jit=False)
    clipped, _ = train((1,), jit=False, clip_norm=1e-3)
    name = "m/decoder/output/w"
    assert free["totals"][3] == clipped["totals"][3] > 1  # the norm before clipping
    scale = 1e-3 / free["totals"][3]
    np.testing.assert_allclose(clipped[name], scale * free[name], 1e-5, 1e-12)


# --- The steps of a run ---------------------------------------------------------------

STEPS = 2 * 3  # of a hundred images, in two epochs


@pytest.fixture(scope="module")
def watched(data_dir, tmp_path_factory):
    """What each step of a run saw and took, and the records of its epochs. The clock
    strikes whenever it is looked at."""
    seen = SimpleNamespace(batches=[], kl_weights=[], rates=[], measures=[])
    gradients, apply, step = loop.loss_and_gradients, adam.apply, loop.train_step

    def watched_gradients(model, params, batch, loss_settings, kl_weight):
        seen.batches.append(batch)
        seen.kl_weights.append(float(kl_weight))
        return gradients(model, params, batch, loss_settings, kl_weight)

    def watched_apply(state, grads, learning_rate, adam_settings):
        seen.rates.append(float(learning_rate))
        apply(state, grads, learning_rate, adam_settings)

    def watched_step(*arguments):
        measures, squares = step(*arguments)
        seen.measures.append(measures.numpy())
        return measures, squares

    ticks, folder = itertools.count(), tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "loss_and_gradients", watched_gradients)
        patch.setattr(loop, "train_step", watched_step)
        patch.setattr(adam, "apply", watched_apply)
        clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
        patch.setattr(loop, "time", clock)
        patch.setitem(loop.MODES, "train", (lambda *job: None, "evaluation"))
        run(
            small_settings(data_dir, folder)
            | dict(batch_size=100, epochs=2, eager=True, conditional=True)
            | dict(binarization="threshold", learning_rate_schedule="cosine")
            | dict(beta=2.0, warmup_epochs=4)
        )
    seen.records = timeless(folder)
    seen.seconds = [r["seconds"] for r in metrics.read(folder / "metrics.jsonl")]
    assert len(seen.batches) == STEPS
    return seen


def rows_of(batch, digits):
    """Which training images a batch is of."""
    images = (digits[0].images[:300] >= 128).reshape(300, -1)
    number = {image.tobytes(): i for i, image in enumerate(images)}
    assert len(number) == 300
    return [number[x.tobytes()] for x in batch.x.numpy() == 1]


def test_every_image_has_its_own_label_at_every_step(watched, digits):
    for batch in watched.batches:
        labels = digits[0].labels[rows_of(batch, digits)]
        np.testing.assert_array_equal(np.argmax(batch.y, axis=1), labels)


def test_every_epoch_visits_every_image_once_in_its_own_order(watched, digits):
    rows = [rows_of(batch, digits) for batch in watched.batches]
    for epoch in (0, 1):
        its_rows = rows[3 * epoch : 3 * epoch + 3]
        assert sorted(sum(its_rows, [])) == list(range(300))
        order = batches.epoch_order(0, epoch, 300, 100)
        np.testing.assert_array_equal(its_rows, order)
    assert rows[:3] != rows[3:]


def test_every_step_has_noise_of_its_own(watched):
    noise = np.stack([batch.noise for batch in watched.batches])
    np.testing.assert_array_equal(noise, batches.noise(0, 0, noise.shape))
    assert len(np.unique(noise)) == noise.size


def test_a_cosine_falls_over_the_whole_run_to_its_last_step(watched):
    """In what Adam is given; each epoch's record has its last step's."""
    formula = [1e-3 * (1 + math.cos(math.pi * i / STEPS)) / 2 for i in range(STEPS)]
    assert watched.rates == pytest.approx(formula, rel=1e-5)
    found = [record["learning_rate"] for record in watched.records]
    assert found == pytest.approx(formula[2::3], rel=1e-5)


def test_the_kl_has_the_warm_ups_weight_at_every_step(watched):
    """Of a warm-up that is longer than the run."""
    formula = [2 * i / (2 * STEPS) for i in range(STEPS)]
    assert watched.kl_weights == pytest.approx(formula, rel=1e-6)
    found = [record["kl_weight"] for record in watched.records]
    assert found == pytest.approx(formula[2::3], rel=1e-6)


def test_an_epochs_means_are_over_its_own_steps(watched):
    measures = np.reshape(watched.measures, [2, 3, 4]).astype(np.float64)
    names = ("train_loss", "train_distortion", "train_rate", "gradient_norm")
    found = [[record[name] for name in names] for record in watched.records]
    np.testing.assert_allclose(found, measures.mean(axis=1), rtol=1e-6)


def test_an_epochs_seconds_are_its_own(watched):
    assert watched.seconds == [1.0, 1.0]
