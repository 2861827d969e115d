import builtins
import errno
import gzip
import itertools
import os
import re
import shutil

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
BLANK, COLOR = np.zeros([330, 28, 28]), np.zeros([330, 32, 32, 3])
HUGE = np.array([0x803, 2**31 - 1, 28, 28], ">u4").tobytes()
BAD_FILES = {
    "missing": (IMAGES, None, "but there is no train-images-idx3-ubyte"),
    "empty": (IMAGES, b"", "truncated inside its header"),
    "cut header": (IMAGES, idx_bytes(BLANK)[:10], "truncated inside its header"),
    "cut body": (IMAGES, idx_bytes(BLANK)[:-1], "expected 258720 bytes .* got fewer"),
    "too long": (IMAGES, idx_bytes(BLANK) + b"x", "got more"),
    "labels as images": (IMAGES, idx_bytes(np.zeros(330)), "starts with 00000803"),
    "images as labels": (LABELS, idx_bytes(BLANK), "starts with 00000801"),
    "floats": (IMAGES, idx_bytes(BLANK, magic=0xD03), "got 00000d03"),
    "27 rows": (
        IMAGES,
        idx_bytes(BLANK[:, 1:]),
        r"train.* \[N, 28, 28\] .* got uint8 \[330, 27, 28\]",
    ),
    "gzip": (
        IMAGES,
        gzip.compress(idx_bytes(BLANK), mtime=0),
        "gzip .* add .gz to its",
    ),
    "gzip of labels": (
        LABELS,
        gzip.compress(b"\0" * 99, mtime=0),
        "add .gz to its name",
    ),
    "color": (IMAGES, idx_bytes(COLOR), r"3 axes\), got 00000804.*make .* grey"),
    "channel": (IMAGES, idx_bytes(COLOR[..., :1]), "got 00000804.*make .* grey"),
    "flat": (IMAGES, idx_bytes(np.zeros([330, 784])), "got 00000802"),
    "one-hot": (LABELS, idx_bytes(np.zeros([330, 10])), r"1 axes\), got 00000802"),
    "a page": (
        IMAGES,
        b"<!DOCTYPE html>\n<html>\n</html>\n",
        "00000803 .*, got 3c21444f",
    ),
    "too few": (
        IMAGES,
        idx_bytes(BLANK[1:]),
        r"train: .* each of 329 images .* got uint8 \[330\]",
    ),
    "huge promise": (IMAGES, HUGE, "expected 1683627179248 bytes .* got fewer"),
    "no images": (IMAGES, idx_bytes(BLANK[:0]), "for each of 0 images"),
}


@pytest.mark.parametrize("which", [0, 1])
def test_a_set_has_at_least_one_image(tmp_path, digits, which):
    sets = list(digits)
    sets[which] = Digits(BLANK[:0], np.zeros(0))
    with pytest.raises(UserError, match="expected .* images, got 0 of them") as error:
        idx.load(write_idx_folder(tmp_path, *sets))
    expect_short(error, tmp_path)


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
    expect_short(error, tmp_path)


def expect_short(error, path):
    """A message is one line of at most 200 characters beside the user's own path."""
    text = str(error.value).replace(str(path), "")
    assert len(text) <= 200 and "\n" not in text


DAMAGED_GZ = {"no gzip": b"no gzip", "cut": gzip.compress(idx_bytes(BLANK))[:-20]}


@pytest.mark.parametrize("content", DAMAGED_GZ.values(), ids=DAMAGED_GZ)
def test_load_refuses_a_damaged_gz(tmp_path, digits, content):
    folder = write_idx_folder(tmp_path, *digits, gz=True)
    (folder / f"{IMAGES}.gz").write_bytes(content)
    reason = r"cannot be read \(.*ended before.*\)$|a gzipped file .*: take .gz off"
    with pytest.raises(UserError, match=reason) as error:
        idx.load(folder)
    expect_short(error, tmp_path)


NO_FOLDERS = {
    "missing": (lambda path: None, "No such file or directory"),
    "a file": (lambda path: path.write_text(""), "Not a directory"),
    "a circle": (lambda path: path.symlink_to(path), "Too many levels"),
}


@pytest.mark.parametrize("case", NO_FOLDERS)
def test_load_refuses_what_is_no_folder(tmp_path, case):
    make, reason = NO_FOLDERS[case]
    make(tmp_path / "digits")
    with pytest.raises(UserError, match=rf"--data_dir.*cannot be read.*{reason}") as e:
        idx.load(tmp_path / "digits")
    assert str(e.value).startswith(f"{tmp_path / 'digits'}: expected a folder")
    expect_short(e, tmp_path)


@pytest.mark.parametrize("closed", ["folder", "file", "way"])
def test_load_says_what_may_not_be_read(tmp_path, digits, monkeypatch, closed):
    """Its owner may forbid it, which binds no administrator that runs this test. A
    folder whose names can be read may yet have no way to its files."""
    folder = write_idx_folder(tmp_path / "digits", *digits)
    place = {"folder": folder, "file": folder / LABELS, "way": folder / IMAGES}[closed]

    def forbidden(function):
        def call(path, *arguments, **keywords):
            if str(path) == str(place):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return function(path, *arguments, **keywords)

        return call

    for function in (os.listdir, open, *[os.stat] * (closed == "way")):
        home = builtins if function is open else os
        monkeypatch.setattr(home, function.__name__, forbidden(function))
    with pytest.raises(UserError, match="cannot be read.*Permission denied") as error:
        idx.load(folder)
    monkeypatch.undo()
    assert str(error.value).startswith(f"{place}: ")
    assert not re.search("room|run_dir|magic|starts with", str(error.value))
    expect_short(error, tmp_path)


OTHER_NAMES = {
    "gz": f"{IMAGES}.gz",
    "dot": "train-images.idx3-ubyte",
    "dot gz": "train-images.idx3-ubyte.gz",
}


@pytest.mark.parametrize("name", OTHER_NAMES.values(), ids=OTHER_NAMES)
@pytest.mark.parametrize("part", ["images", "labels"])
def test_two_sets_in_one_folder_are_refused(tmp_path, digits, name, part):
    (train_set, _), axes = digits, 3 if part == "images" else 1
    name = name.replace("images", part).replace("idx3", f"idx{axes}")
    folder = write_idx_folder(tmp_path, *digits)
    array = getattr(train_set, part)
    content = {
        "equal": idx_bytes(array),
        "a bit": idx_bytes(array ^ (np.arange(array.size).reshape(array.shape) == 7)),
        "shorter": idx_bytes(array[1:]),
    }
    for case, other in content.items():
        zipped = gzip.compress(other) if name.endswith(".gz") else other
        (folder / name).write_bytes(zipped)
        if case == "equal":
            np.testing.assert_array_equal(idx.load(folder)[0].images, train_set.images)
            continue
        with pytest.raises(
            UserError, match="expected one data set, but .* differ"
        ) as e:
            idx.load(folder)
        assert f"train-{part}-idx{axes}-ubyte and {name}" in str(e.value)
        expect_short(e, tmp_path)


def test_many_sets_in_one_folder_are_named_in_one_line(tmp_path, digits):
    train_set, test_set = digits
    for number, (dot, gz) in enumerate(itertools.product("-.", (False, True))):
        other = Digits(train_set.images ^ np.uint8(number), train_set.labels)
        folder = write_idx_folder(tmp_path, other, test_set, dot=dot, gz=gz)
    with pytest.raises(UserError, match="expected one data set") as error:
        idx.load(folder)
    expect_short(error, tmp_path)


def test_a_folder_with_a_files_name_is_no_second_set(tmp_path, digits):
    """Some unpack each file into a folder that is called as it is, and copy it."""
    folder = write_idx_folder(tmp_path, *digits, dot=".")
    for name in [path.name for path in folder.iterdir()]:
        inner = folder / name.replace(".", "-")
        inner.mkdir()
        shutil.copy(folder / name, inner / inner.name)
    np.testing.assert_array_equal(idx.load(folder)[0].images, digits[0].images)
    (folder / "train-images.idx3-ubyte").unlink()
    with pytest.raises(UserError, match="but train-images-idx3-ubyte is a folder"):
        idx.load(folder)
