import gzip

import numpy as np
import pytest

from core.data import idx
from core.data.digits import Digits
from core.errors import UserError
from tests.conftest import idx_bytes, write_idx_folder


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_load_reads_every_naming(tmp_path, digits, dot, gz):
    loaded = idx.load(write_idx_folder(tmp_path, *digits, dot=dot, gz=gz))
    for found, expected in zip(loaded, digits, strict=True):
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_load_takes_256_classes(tmp_path, digits):
    train_set = Digits(np.zeros([256, 28, 28]), np.arange(256))
    loaded, _ = idx.load(write_idx_folder(tmp_path, train_set, digits[1]))
    assert loaded.labels.max() == 255


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
BLANK = np.zeros([330, 28, 28])
HUGE = np.array([0x803, 2**31 - 1, 28, 28], ">u4").tobytes()
BAD_FILES = {
    "missing": (IMAGES, None, "expected a file train-images-idx3-ubyte"),
    "empty": (IMAGES, b"", "truncated inside its header"),
    "cut header": (IMAGES, idx_bytes(BLANK)[:10], "truncated inside its header"),
    "cut body": (IMAGES, idx_bytes(BLANK)[:-1], "expected 258720 bytes .* got 258719"),
    "too long": (IMAGES, idx_bytes(BLANK) + b"x", "got more"),
    "labels as images": (IMAGES, idx_bytes(np.zeros(330)), "starts with 00000803"),
    "images as labels": (LABELS, idx_bytes(BLANK), "starts with 00000801"),
    "floats": (IMAGES, idx_bytes(BLANK, magic=0xD03), "got 00000d03"),
    "27 rows": (IMAGES, idx_bytes(BLANK[:, 1:]), "expected images of 28x28 .* 27x28"),
    "too few": (IMAGES, idx_bytes(BLANK[1:]), "329 images and 330 labels"),
    "huge promise": (IMAGES, HUGE, "more than the file can hold"),
    "no images": (IMAGES, idx_bytes(BLANK[:0]), "got 0 images"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_load_refuses(tmp_path, digits, case):
    name, content, message = BAD_FILES[case]
    folder = write_idx_folder(tmp_path, *digits)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        idx.load(folder)
    assert str(tmp_path) in str(error.value)


DAMAGED_GZ = {"no gzip": b"no gzip", "cut": gzip.compress(idx_bytes(BLANK))[:-20]}


@pytest.mark.parametrize("content", DAMAGED_GZ.values(), ids=DAMAGED_GZ)
def test_load_refuses_a_damaged_gz(tmp_path, digits, content):
    folder = write_idx_folder(tmp_path, *digits, gz=True)
    (folder / f"{IMAGES}.gz").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        idx.load(folder)


def test_load_refuses_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        idx.load(tmp_path / "nowhere")
