import numpy as np
import pytest
import tensorflow as tf

from core.data import batches, binarization


@pytest.fixture(scope="module")
def ramp():
    """1,000 images that hold every grey level three times."""
    levels = np.tile(np.arange(256), 4)[:784].astype(np.uint8)
    return tf.constant(np.tile(levels, [1000, 1]))


def test_a_pixel_is_on_as_often_as_it_is_bright(ramp):
    visits = [
        binarization.epoch_pixels(ramp, "dynamic", 0, epoch) for epoch in range(20)
    ]
    on = np.concatenate(visits).mean(axis=0)
    p = ramp[0].numpy() / 255
    error = np.abs(on - p) / np.sqrt(p * (1 - p) / 20_000 + 1e-12)
    assert error.max() < 4.7
    assert np.mean(error[(p > 0) & (p < 1)]) == pytest.approx(0.8, abs=0.1)
    assert set(on[p == 0]) == {0.0} and set(on[p == 1]) == {1.0}


def test_pixels_are_drawn_independently(ramp):
    pixels = binarization.epoch_pixels(ramp, "dynamic", 0, 0).numpy()
    middle = pixels[:, np.abs(ramp[0].numpy().astype(int) - 128) < 40].astype(float)
    correlation = np.corrcoef(middle.T) - np.eye(middle.shape[1])
    assert np.abs(correlation).max() < 5.5 / np.sqrt(1000)
    following = np.mean((middle[1:] - middle.mean(0)) * (middle[:-1] - middle.mean(0)))
    assert abs(following) < 0.005  # of at most 0.25


def test_dynamic_pixels_are_new_at_every_visit_and_static_ones_are_not(ramp):
    def draw(kind, seed, epoch):
        return binarization.epoch_pixels(ramp, kind, seed, epoch).numpy()

    np.testing.assert_array_equal(draw("dynamic", 0, 1), draw("dynamic", 0, 1))
    assert not np.array_equal(draw("dynamic", 0, 1), draw("dynamic", 0, 2))
    assert not np.array_equal(draw("dynamic", 0, 1), draw("dynamic", 1, 1))
    np.testing.assert_array_equal(draw("static", 0, 1), draw("static", 0, 2))
    assert not np.array_equal(draw("static", 0, 1), draw("static", 1, 1))
    for epoch in range(3):  # nor is a visit ever the static draw
        assert not np.array_equal(draw("dynamic", 0, epoch), draw("static", 0, 0))


def test_a_users_own_image_is_drawn_as_often_as_it_is_bright(ramp):
    """By what is in it: each of these has a pixel of its own."""
    images = ramp.numpy().copy()
    images[:, 255], images[:, 511] = np.divmod(np.arange(1000), 250)
    pixels = binarization.own_pixels(tf.constant(images), "dynamic", 0, 3).numpy()
    error = pixels[:, 1:254].mean(axis=0) - images[0, 1:254] / 255
    assert np.abs(error).max() < 4.5 * 0.5 / np.sqrt(1000)
    assert abs(error.mean()) < 4.5 * 0.41 / np.sqrt(253_000)
    other = binarization.own_pixels(tf.constant(images), "dynamic", 1, 3)
    assert np.mean(other != pixels) > 0.1
    for kind in ("threshold", "none"):
        np.testing.assert_array_equal(
            binarization.own_pixels(ramp, kind, 0, 3),
            binarization.fixed_pixels(ramp, kind, 0, 3),
        )


def test_fixed_pixels_are_one_draw_of_their_own(ramp):
    for kind in ("dynamic", "static"):
        validation, again, test = (
            binarization.fixed_pixels(ramp, kind, 0, index).numpy()
            for index in (0, 0, 1)
        )
        np.testing.assert_array_equal(validation, again)
        assert not np.array_equal(validation, test)
        for epoch in range(3):
            seen = binarization.epoch_pixels(ramp, kind, 0, epoch)
            assert not np.array_equal(validation, seen)


def test_threshold_and_none_draw_nothing(ramp):
    for pixels in (
        binarization.epoch_pixels(ramp, "threshold", 0, 0),
        binarization.fixed_pixels(ramp, "threshold", 0, 0),
    ):
        np.testing.assert_array_equal(pixels, ramp >= 128)
    np.testing.assert_array_equal(binarization.epoch_pixels(ramp, "none", 0, 0), ramp)


@pytest.mark.parametrize("kind", ["dynamic", "static", "threshold", "none"])
def test_only_grey_pixels_are_bytes(ramp, kind):
    grey = kind == "none"
    for pixels in (
        binarization.epoch_pixels(ramp, kind, 0, 0),
        binarization.fixed_pixels(ramp, kind, 0, 0),
    ):
        assert pixels.dtype == (tf.uint8 if grey else tf.bool)
        x, _ = batches.to_batch(pixels)
        assert len(np.unique(x)) == (256 if grey else 2)
        assert tf.reduce_min(x) == 0 and tf.reduce_max(x) == 1
