import numpy as np
import pytest
import tensorflow as tf

from core import batches


@pytest.fixture(scope="module")
def ramp():
    """1,000 images that hold every grey level three times."""
    levels = np.tile(np.arange(256), 4)[:784].astype(np.uint8)
    return tf.constant(np.tile(levels, [1000, 1]))


def test_mean_pixel():
    assert batches.mean_pixel(np.array([[0, 255], [51, 0]], np.uint8)) == 0.3


def test_a_pixel_is_on_as_often_as_it_is_bright(ramp):
    visits = [batches.epoch_pixels(ramp, "dynamic", 0, epoch) for epoch in range(20)]
    on = np.concatenate(visits).mean(axis=0)
    p = ramp[0].numpy() / 255
    error = np.abs(on - p) / np.sqrt(p * (1 - p) / 20_000 + 1e-12)
    assert error.max() < 4.7
    assert np.mean(error[(p > 0) & (p < 1)]) == pytest.approx(0.8, abs=0.1)
    assert set(on[p == 0]) == {0.0} and set(on[p == 1]) == {1.0}


def test_pixels_are_drawn_independently(ramp):
    pixels = batches.epoch_pixels(ramp, "dynamic", 0, 0).numpy()
    middle = pixels[:, np.abs(ramp[0].numpy().astype(int) - 128) < 40].astype(float)
    correlation = np.corrcoef(middle.T) - np.eye(middle.shape[1])
    assert np.abs(correlation).max() < 5.5 / np.sqrt(1000)
    following = np.mean((middle[1:] - middle.mean(0)) * (middle[:-1] - middle.mean(0)))
    assert abs(following) < 0.005  # of at most 0.25


def test_dynamic_pixels_are_new_at_every_visit_and_static_ones_are_not(ramp):
    def draw(binarization, seed, epoch):
        return batches.epoch_pixels(ramp, binarization, seed, epoch).numpy()

    np.testing.assert_array_equal(draw("dynamic", 0, 1), draw("dynamic", 0, 1))
    assert not np.array_equal(draw("dynamic", 0, 1), draw("dynamic", 0, 2))
    assert not np.array_equal(draw("dynamic", 0, 1), draw("dynamic", 1, 1))
    np.testing.assert_array_equal(draw("static", 0, 1), draw("static", 0, 2))
    assert not np.array_equal(draw("static", 0, 1), draw("static", 1, 1))


def test_fixed_pixels_are_one_draw_of_their_own(ramp):
    for binarization in ("dynamic", "static"):
        validation, again, test = (
            batches.fixed_pixels(ramp, binarization, 0, index).numpy()
            for index in (0, 0, 1)
        )
        np.testing.assert_array_equal(validation, again)
        assert not np.array_equal(validation, test)
        for epoch in range(3):
            seen = batches.epoch_pixels(ramp, binarization, 0, epoch)
            assert not np.array_equal(validation, seen)


def test_threshold_and_none_draw_nothing(ramp):
    for pixels in (
        batches.epoch_pixels(ramp, "threshold", 0, 0),
        batches.fixed_pixels(ramp, "threshold", 0, 0),
    ):
        np.testing.assert_array_equal(pixels, ramp >= 128)
    np.testing.assert_array_equal(batches.epoch_pixels(ramp, "none", 0, 0), ramp)


def test_a_batch_scales_grey_pixels_only():
    pixels, labels = tf.constant([[0, 1, 255]], tf.uint8), tf.constant([9], tf.uint8)
    x, y = batches.to_batch(pixels, labels, "none")
    np.testing.assert_allclose(x, [[0, 1 / 255, 1]])
    assert y is None
    x, _ = batches.to_batch(pixels[:, :2], labels, "dynamic")
    np.testing.assert_array_equal(x, [[0, 1]])


def test_labels_are_one_hot_for_a_conditional_model():
    labels = tf.constant([3, 0, 9], tf.uint8)
    pixels = tf.zeros([3, 784], tf.uint8)
    _, y = batches.to_batch(pixels, labels, "static", conditional=True)
    np.testing.assert_array_equal(y, np.eye(10)[[3, 0, 9]])


def test_an_epoch_visits_every_image_once_in_a_new_order():
    orders = [batches.epoch_order(0, epoch, 60, 20).numpy() for epoch in range(2)]
    for order in orders:
        assert order.shape == (3, 20)
        np.testing.assert_array_equal(np.sort(order.ravel()), np.arange(60))
    assert not np.array_equal(*orders)
    assert batches.epoch_order(0, 0, 65, 20).shape == (3, 20)
    assert len(np.unique(batches.epoch_order(0, 0, 65, 20))) == 60
