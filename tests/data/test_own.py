import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.data import own
from core.errors import UserError

GREY = np.random.default_rng(0).integers(2, 256, [3, 28, 28], np.uint8)


def saved(path, array):
    np.save(path, array)
    return str(path)


def converted(line, array, path):
    """What the code in an error's line makes of an array."""
    code = line[line.index("np.save(") : line.index(" converts it")]
    exec(code, {"np": np, "images": array, "FILE": path})
    return own.load(str(path))[0]


def test_an_array_of_bytes_is_taken_as_it_is(tmp_path):
    images, names = own.load(saved(tmp_path / "mine.npy", GREY))
    np.testing.assert_array_equal(images, GREY)
    assert names == ["mine.npy[0]", "mine.npy[1]", "mine.npy[2]"]
    blank = np.zeros([1, 28, 28], np.uint8)
    assert not own.load(saved(tmp_path / "blank.npy", blank))[0].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_the_nearest_grey_value(tmp_path, dtype):
    images, _ = own.load(saved(tmp_path / "a.npy", (GREY / 255).astype(dtype)))
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, GREY)


@pytest.mark.parametrize(
    "array",
    [
        GREY.reshape(3, 784),
        GREY[..., None],
        GREY.astype(int),
        255 * (GREY / GREY.max()),
        (GREY > 128).astype(np.uint8),  # would be a blank sheet
        GREY > 128,
    ],
    ids=lambda a: f"{a.dtype} {a.shape} {a.max()}",
)
def test_other_arrays_are_refused_with_a_line_that_converts_them(tmp_path, array):
    with pytest.raises(UserError, match=r"expected \[N, 28, 28\].*, got ") as error:
        own.load(saved(tmp_path / "a.npy", array))
    images = converted(str(error.value), array, tmp_path / "b.npy")
    expected = np.rint(255 * (array / array.max())).reshape(3, 28, 28)
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("mean, deviation", [(0.5, 0.5), (0.1307, 0.3081)])
def test_standardized_arrays_are_refused_with_a_line_that_undoes_it(
    tmp_path, mean, deviation
):
    grey = GREY.copy()
    grey[:, 0, :2] = 0, 255
    array = ((grey / 255 - mean) / deviation).astype(np.float32)
    with pytest.raises(UserError, match=r"got float32 .* from -") as error:
        own.load(saved(tmp_path / "a.npy", array))
    images = converted(str(error.value), array, tmp_path / "b.npy")
    np.testing.assert_array_equal(images, grey)


@pytest.mark.parametrize(
    "array",
    [
        np.repeat(GREY[..., None], 3, axis=3),
        GREY[0],
        np.full([1, 28, 28], np.nan),
        np.full([1, 28, 28], np.inf),
        np.zeros([1, 28, 28], int),
        GREY * 1j,
    ],
    ids=lambda a: f"{a.dtype} {a.shape} {a.max()}",
)
def test_what_no_line_converts_is_refused_without_one(tmp_path, array):
    with pytest.raises(
        UserError, match=r"expected \[N, 28, 28\].*, got .* to "
    ) as error:
        own.load(saved(tmp_path / "a.npy", array))
    assert "np.save(" not in str(error.value)


def test_what_is_no_array_of_images_is_refused_in_a_line(tmp_path):
    np.savez(tmp_path / "a.npz", GREY)
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "short.npy").write_bytes((tmp_path / "object.npy").read_bytes()[:50])
    (tmp_path / "text.npy").write_text("digits")
    (tmp_path / "empty.npy").write_text("")
    saved(tmp_path / "words.npy", np.array(["a"]))
    saved(tmp_path / "none.npy", GREY[:0])
    saved(tmp_path / "nan.npy", np.full([1, 28, 28], np.nan))
    names = [*(path.name for path in tmp_path.iterdir()), "missing.npy"]
    for name in names:
        with pytest.raises(UserError, match=f"^--images=.*{name}: expected") as error:
            own.load(f"{tmp_path}/{name}")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", range(6, 128))
def test_a_damaged_header_is_an_array_or_refused_in_a_line(tmp_path, place):
    content = bytearray(Path(saved(tmp_path / "a.npy", GREY)).read_bytes())
    for value in (0, 9, 10, 39, 40, 57, 92, 123, 255, content[place] ^ 64):
        content[place] = value
        (tmp_path / "b.npy").write_bytes(content)
        with contextlib.suppress(UserError):
            own.load(f"{tmp_path}/b.npy")


def test_a_folder_of_pngs_is_read_in_the_order_of_names(tmp_path):
    for name, image in zip(("b.PNG", "a.png", "c.png"), GREY, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    Image.fromarray(GREY[2]).convert("RGB").save(tmp_path / "c.png")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "._a.png").write_text("a system's, beside each file")
    images, names = own.load(str(tmp_path))
    assert names == ["a.png", "b.PNG", "c.png"]
    np.testing.assert_array_equal(images, GREY[[1, 0, 2]])


@pytest.mark.parametrize(
    "mode, advice", [("RGBA", "black"), ("LA", "black"), ("I;16", "values by 257")]
)
def test_a_png_that_a_conversion_would_spoil_is_refused_with_what_to_do(
    tmp_path, mode, advice
):
    Image.new(mode, (28, 28)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=f"a.png: .*, got {mode}, .*{advice}") as error:
        own.load(str(tmp_path))
    assert "convert(" not in str(error.value)


def test_pngs_of_black_and_white_as_0_and_1_are_refused(tmp_path):
    """They would be blank sheets."""
    Image.fromarray((GREY[0] > 128).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="expected ink of 255, got 0 and 1 alone"):
        own.load(str(tmp_path))
    Image.fromarray(GREY[1]).save(tmp_path / "b.png")
    assert own.load(str(tmp_path))[1] == ["a.png", "b.png"]


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_another_png_is_refused_with_a_line_that_converts_it(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.new(mode, (28, 28) if mode == "P" else (280, 200)).save(path)
    with pytest.raises(UserError, match=f"a.png: expected .*, got {mode}, ") as error:
        own.load(str(tmp_path))
    line = str(error.value)
    code = line[line.index("Image.open(") : line.index(" of PIL")]
    exec(code, {"Image": Image, "FILE": path})
    assert own.load(str(tmp_path))[0].shape == (1, 28, 28)


def test_what_is_no_png_is_refused_in_a_line(tmp_path):
    with pytest.raises(UserError, match="expected PNG files in it, got none"):
        own.load(str(tmp_path))
    Image.fromarray(GREY[0]).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for content in (b"", b"digits", whole[:60], whole[:-200]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(UserError, match="a.png: expected a grey PNG") as error:
            own.load(str(tmp_path))
        assert "\n" not in str(error.value)
