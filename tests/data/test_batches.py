import numpy as np
import pytest
import tensorflow as tf

from core import numerics, rng
from core import settings as settings_of
from core.data import batches, binarization, datasets
from core.model.build import build


def test_mean_pixel():
    assert batches.mean_pixel(np.array([[0, 255], [51, 0]], np.uint8)) == 0.3


def test_flat_images_keep_their_order():
    images = np.arange(2 * 784).reshape(2, 28, 28).astype(np.uint8)
    flat = batches.flatten(images)
    assert flat.shape == (2, 784) and flat.dtype == tf.uint8
    assert flat[1, 28 * 3 + 5] == images[1, 3, 5]


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_type_of_pixels_decides_how_they_are_scaled(dtype):
    grey = tf.constant([[0, 1, 255]], tf.uint8)
    x, y = batches.to_batch(grey, dtype=dtype)
    assert x.dtype == dtype and y is None
    np.testing.assert_allclose(x, [[0, 1 / 255, 1]], rtol=1e-7)
    x, y = batches.to_batch(grey > 0, dtype=dtype)
    assert x.dtype == dtype and y is None
    np.testing.assert_array_equal(x, [[0, 1, 1]])
    z = tf.constant([[0, -1.5, 300]], dtype)  # latents are as they are
    np.testing.assert_array_equal(batches.to_batch(z, dtype=dtype)[0], z)


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
        expected = binarization.epoch_pixels(data.train.pixels, "dynamic", 7, number)
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
