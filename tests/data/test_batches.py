import numpy as np
import pytest
import tensorflow as tf

from core import numerics, rng
from core import settings as settings_of
from core.data import batches, datasets
from core.model.build import build


@pytest.fixture(scope="module")
def ramp():
    """1,000 images that hold every grey level three times."""
    levels = np.tile(np.arange(256), 4)[:784].astype(np.uint8)
    return tf.constant(np.tile(levels, [1000, 1]))


def test_mean_pixel():
    assert batches.mean_pixel(np.array([[0, 255], [51, 0]], np.uint8)) == 0.3


def test_flat_images_keep_their_order():
    images = np.arange(2 * 784).reshape(2, 28, 28).astype(np.uint8)
    flat = batches.flatten(images)
    assert flat.shape == (2, 784) and flat.dtype == tf.uint8
    assert flat[1, 28 * 3 + 5] == images[1, 3, 5]


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
    for epoch in range(3):  # nor is a visit ever the static draw
        assert not np.array_equal(draw("dynamic", 0, epoch), draw("static", 0, 0))


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


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_type_of_pixels_decides_how_they_are_scaled(dtype):
    grey = tf.constant([[0, 1, 255]], tf.uint8)
    x, y = batches.to_batch(grey, dtype=dtype)
    assert x.dtype == dtype and y is None
    np.testing.assert_allclose(x, [[0, 1 / 255, 1]], rtol=1e-7)
    x, y = batches.to_batch(grey > 0, dtype=dtype)
    assert x.dtype == dtype and y is None
    np.testing.assert_array_equal(x, [[0, 1, 1]])


@pytest.mark.parametrize("binarization", ["dynamic", "static", "threshold", "none"])
def test_only_grey_pixels_are_bytes(ramp, binarization):
    grey = binarization == "none"
    for pixels in (
        batches.epoch_pixels(ramp, binarization, 0, 0),
        batches.fixed_pixels(ramp, binarization, 0, 0),
    ):
        assert pixels.dtype == (tf.uint8 if grey else tf.bool)
        x, _ = batches.to_batch(pixels)
        assert len(np.unique(x)) == (256 if grey else 2)
        assert tf.reduce_min(x) == 0 and tf.reduce_max(x) == 1


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_labels_are_one_hot(dtype):
    labels = tf.constant([3, 0, 9], tf.uint8)
    _, y = batches.to_batch(tf.zeros([3, 784], tf.uint8), labels, dtype)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.eye(10)[[3, 0, 9]])
    assert batches.one_hot(None) is None


def test_an_epoch_visits_every_image_once_in_a_new_order():
    orders = [batches.epoch_order(0, epoch, 60, 20).numpy() for epoch in range(2)]
    for order in orders:
        assert order.shape == (3, 20)
        np.testing.assert_array_equal(np.sort(order.ravel()), np.arange(60))
    assert not np.array_equal(*orders)
    assert batches.epoch_order(0, 0, 65, 20).shape == (3, 20)
    assert len(np.unique(batches.epoch_order(0, 0, 65, 20))) == 60


# --- Epoch, block, batch --------------------------------------------------------------


def make_epoch(labels=True):
    """Two steps of three images, and an image that sits out; image i is all i."""
    pixels = tf.repeat(tf.range(7, dtype=tf.int32)[:, None], 784, axis=1)
    order = tf.constant([[4, 0, 6], [2, 1, 5]])
    digits = tf.range(7) + 1 if labels else None
    return batches.Epoch(tf.cast(pixels, tf.uint8), digits, order)


def test_a_block_is_the_orders_rows_from_its_first_step_on():
    noise = tf.zeros([2, 1, 3, 4])
    block = batches.block(make_epoch(), 0, noise, 2)
    np.testing.assert_array_equal(block.pixels[..., 9], [[4, 0, 6], [2, 1, 5]])
    np.testing.assert_array_equal(block.labels, [[5, 1, 7], [3, 2, 6]])
    assert block.pixels.dtype == tf.uint8 and block.noise is noise
    assert block.count == 2 and block.count.dtype == tf.int32
    second = batches.block(make_epoch(), 1, noise[:1], 1)
    np.testing.assert_array_equal(second.pixels[..., 9], [[2, 1, 5]])
    assert batches.block(make_epoch(labels=False), 0, noise, 2).labels is None


def test_a_blocks_shapes_do_not_depend_on_how_much_is_left_of_the_epoch():
    """Rows beyond its end are the last batch again."""
    noise = tf.zeros([3, 1, 3, 4])
    for first, count in ((0, 2), (1, 1), (1, 0)):
        block = batches.block(make_epoch(), first, noise, count)
        assert block.pixels.shape == (3, 3, 784) and block.labels.shape == (3, 3)
        np.testing.assert_array_equal(block.pixels[-1, :, 0], [2, 1, 5])
        assert block.count == count


@pytest.mark.parametrize("labels", [True, False])
def test_a_batch_is_one_step_of_a_block(labels):
    noise = tf.random.stateless_normal([2, 1, 3, 4], [0, 1])
    block = batches.block(make_epoch(labels), 0, noise, 2)
    batch = batches.batch(block, tf.constant(1))
    np.testing.assert_allclose(batch.x[:, 7], np.divide([2, 1, 5], 255), rtol=1e-6)
    np.testing.assert_array_equal(batch.noise, noise[1])
    if labels:
        np.testing.assert_array_equal(batch.y, np.eye(10)[[3, 2, 6]])
    else:
        assert batch.y is None


@pytest.mark.parametrize("conditional", [True, False])
def test_an_epoch_is_of_the_training_images(digits, conditional):
    """In its own order, with its own pixels, and labels for who asks for them."""
    settings = settings_of.Data(validation_size=30)
    data = datasets.split("tiny", *digits, settings)
    model = build(settings_of.Model(hidden_sizes=(8,), conditional=conditional))
    first, third = (batches.epoch(data, model, 20, 7, number) for number in (0, 2))
    assert first.pixels.shape == (300, 784) and first.order.shape == (15, 20)
    for number, found in ((0, first), (2, third)):
        expected = batches.epoch_pixels(data.train.pixels, "dynamic", 7, number)
        np.testing.assert_array_equal(found.pixels, expected)
        order = batches.epoch_order(7, number, 300, 20)
        np.testing.assert_array_equal(found.order, order)
    if conditional:
        np.testing.assert_array_equal(first.labels, digits[0].labels[:300])
    else:
        assert first.labels is None


# --- Noise ----------------------------------------------------------------------------


def test_noise_depends_on_the_step_alone():
    long = batches.noise(3, 10, (8, 2, 3, 4)).numpy()
    short = batches.noise(3, 14, (2, 2, 3, 4)).numpy()
    assert long.shape == (8, 2, 3, 4)
    np.testing.assert_array_equal(long[4:6], short)
    table = rng.normal_rows(rng.key(3, rng.Stream.POSTERIOR, 0), 15, (1, 2, 3, 4))
    np.testing.assert_array_equal(long[5], table[0])
    assert len(np.unique(long)) == long.size
    other = batches.noise(4, 10, (8, 2, 3, 4)).numpy()
    assert not np.isin(other, long).any()


TWO = {"stochastic_layers": 2, "latent_dims": (4, 3)}
CONV = {"architecture": "conv"}


@pytest.mark.parametrize(
    "model, num_samples, epoch_steps, shape",
    [
        ({}, 1, 8, (8, 1, 20, 2)),  # all in one block
        ({}, 1, 12, (6, 1, 20, 2)),  # two blocks, the fewest
        ({}, 1, 23, (8, 1, 20, 2)),  # three, of which the last is shorter
        ({}, 5, 8, (2, 5, 20, 2)),
        ({}, 50, 8, (1, 50, 20, 2)),  # never less than a step
        (TWO, 1, 8, (8, 1, 20, 7)),
        (CONV, 1, 8, (1, 1, 20, 2)),  # a sample costs ten times as much
    ],
)
def test_a_blocks_noise_is_for_equal_blocks_of_bounded_cost(
    monkeypatch, model, num_samples, epoch_steps, shape
):
    monkeypatch.setattr(numerics, "BLOCK_SAMPLES", 200)
    model = build(settings_of.Model(**model))
    settings = settings_of.Objective(num_samples=num_samples)
    assert batches.noise_shape(model, settings, 20, epoch_steps) == shape
