import math

import pytest
import tensorflow as tf

from core import settings
from core.training import schedules
from core.training.schedules import Horizon


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_warm_up_rises_in_a_straight_line_to_beta(dtype):
    def weights(beta, warmup):
        loss_settings, horizon = settings.Objective(beta=beta), Horizon(warmup, 1000)
        return [
            float(
                schedules.kl_weight_at(tf.constant(step, dtype), loss_settings, horizon)
            )
            for step in (0, 25, 50, 100, 170)
        ]

    assert weights(3.0, 100) == pytest.approx([0, 0.75, 1.5, 3, 3])
    assert weights(0.5, 0) == [0.5] * 5


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_the_learning_rate_is_constant_or_falls_as_its_schedule(dtype):
    def rates(schedule):
        adam_settings = settings.Adam(
            learning_rate=0.1, learning_rate_schedule=schedule
        )
        horizon = Horizon(7, 100)
        return [
            float(
                schedules.learning_rate_at(
                    tf.constant(step, dtype), adam_settings, horizon
                )
            )
            for step in (0, 50, 75, 100, 150)
        ]

    assert rates("constant") == pytest.approx([0.1] * 5)
    falling = [0.1 / math.sqrt(1 + step / 1000) for step in (0, 50, 75, 100, 150)]
    assert rates("inverse_sqrt") == pytest.approx(falling)
    expected = [0.1, 0.05, 0.05 * (1 - math.sqrt(0.5)), 0, 0]
    assert rates("cosine") == pytest.approx(expected, abs=1e-8)


def test_a_step_is_recorded_with_what_was_scheduled_for_it():
    """As plain numbers: they go into JSON. The last step of the run is not the end of
    the cosine, which would be a rate of 0."""
    horizon = Horizon(warmup=200, total=100)
    loss_settings = settings.Objective(beta=3.0)
    adam_settings = settings.Adam(learning_rate=0.1, learning_rate_schedule="cosine")
    for step in (0, 30, 99):
        found = schedules.at(step, loss_settings, adam_settings, horizon)
        assert {name: type(value) for name, value in found.items()} == {
            "learning_rate": float,
            "kl_weight": float,
        }
        rate = 0.05 * (1 + math.cos(math.pi * step / 100))
        assert found["learning_rate"] == pytest.approx(rate, rel=1e-3)
        assert found["kl_weight"] == pytest.approx(3 * step / 200, rel=1e-6)
    adam_settings = settings.Adam(learning_rate=1e-3, learning_rate_schedule="constant")
    constant = schedules.at(5, loss_settings, adam_settings, Horizon(0, 100))
    assert constant == {"learning_rate": 1e-3, "kl_weight": 3.0}


def test_the_horizon_is_counted_in_steps():
    loss_settings = settings.Objective(warmup_epochs=3)
    horizon = schedules.horizon(loss_settings, 10, 40)
    assert horizon == Horizon(warmup=120, total=400)
    assert schedules.horizon(settings.Objective(), 10, 40).warmup == 0
