import contextlib
import functools
import gzip
import hashlib
import http.server
import threading
import time
import urllib.request

import numpy as np
import pytest

from core import mnist
from tests.conftest import idx_bytes, write_idx_folder


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_load_reads_every_naming(tmp_path, digits, dot, gz):
    loaded = mnist.load(write_idx_folder(tmp_path, *digits, dot=dot, gz=gz))
    for found, expected in zip(loaded, digits, strict=True):
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_load_takes_256_classes(tmp_path, digits):
    train_set = mnist.Digits(np.zeros([256, 28, 28]), np.arange(256))
    loaded, _ = mnist.load(write_idx_folder(tmp_path, train_set, digits[1]))
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
    with pytest.raises(ValueError, match=message) as error:
        mnist.load(folder)
    assert str(tmp_path) in str(error.value)


DAMAGED_GZ = {"no gzip": b"no gzip", "cut": gzip.compress(idx_bytes(BLANK))[:-20]}


@pytest.mark.parametrize("content", DAMAGED_GZ.values(), ids=DAMAGED_GZ)
def test_load_refuses_a_damaged_gz(tmp_path, digits, content):
    folder = write_idx_folder(tmp_path, *digits, gz=True)
    (folder / f"{IMAGES}.gz").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        mnist.load(folder)


def test_load_refuses_a_missing_folder(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        mnist.load(tmp_path / "nowhere")


def test_checksum_sees_one_changed_pixel(digits):
    train_set, test_set = digits
    changed = mnist.Digits(train_set.images.copy(), train_set.labels)
    changed.images[5, 14, 14] ^= 1
    assert mnist.checksum(changed, test_set) != mnist.checksum(*digits)
    assert mnist.checksum(*digits) == mnist.checksum(*digits)


# --- Downloads, from a server on loopback ---------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, behavior, files, *arguments):
        self.behavior, self.files = behavior, files
        super().__init__(*arguments)

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        content = self.files[self.path[1:]]
        if self.behavior == "hangs":
            time.sleep(3)
            return
        if self.behavior == "missing":
            self.send_error(404)
            return
        if self.behavior == "odd":
            self.send_response(302)
            self.send_header("Location", "http://[x/")
            self.end_headers()
            return
        if self.behavior == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        if self.behavior not in ("endless", "drips"):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            if self.behavior == "truncated":
                self.wfile.write(content[: len(content) // 2])
            elif self.behavior == "endless":
                while True:
                    self.wfile.write(bytes(2**16))
            elif self.behavior == "drips":
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
            else:
                self.wfile.write(content)


pytestmark = pytest.mark.filterwarnings(  # a server's socket, closed by either side
    "ignore:Exception ignored.*socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def serve(digits, tmp_path, monkeypatch):
    """serve(behavior, ...) -> sources, one mirror for each behavior."""
    monkeypatch.setattr(mnist, "OPEN_SECONDS", 0.5)
    monkeypatch.setattr(mnist, "MAX_DOWNLOAD", 2**20)
    monkeypatch.setattr("tqdm.tqdm.__init__", _quiet(mnist.tqdm.tqdm.__init__))
    folder = write_idx_folder(tmp_path / "origin", *digits, gz=True)
    files = {name: (folder / name).read_bytes() for name in mnist.FILES}
    servers = []

    def start(*behaviors, of_content=True):
        mirrors = []
        for behavior in behaviors:
            handler = functools.partial(Handler, behavior, files)
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            if behavior == "down":
                server.server_close()
            else:
                threading.Thread(target=server.serve_forever, args=[0.02]).start()
                servers.append(server)
            mirrors.append(f"http://127.0.0.1:{server.server_port}/")
        digests = tuple(
            hashlib.sha256(gzip.decompress(files[n]) if of_content else files[n])
            for n in mnist.FILES
        )
        digests = tuple(digest.hexdigest() for digest in digests)
        source = mnist.Source(tuple(mirrors), "sha256", of_content, digests)
        return {"mnist": source}

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _quiet(init):
    return lambda self, *a, **k: init(self, *a, **(k | {"disable": True}))


def everything_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("of_content", [True, False])
def test_fetch_downloads_verifies_and_caches(serve, tmp_path, digits, of_content):
    cache = tmp_path / "cache"
    folder = mnist.fetch("mnist", cache, serve("good", of_content=of_content))
    assert everything_in(cache) == sorted(mnist.FILES)
    np.testing.assert_array_equal(mnist.load(folder)[0].images, digits[0].images)
    # The second time no server is asked.
    mnist.fetch("mnist", cache, serve("down", of_content=of_content))


@pytest.mark.parametrize(
    "bad",
    ["down", "missing", "truncated", "wrong", "hangs", "endless", "drips", "odd"],
)
def test_fetch_goes_to_the_next_mirror(serve, tmp_path, bad):
    cache = tmp_path / "cache"
    mnist.fetch("mnist", cache, serve(bad, "good"))
    assert everything_in(cache) == sorted(mnist.FILES)


@pytest.mark.parametrize(
    ("bad", "reason"),
    {
        "down": "refused",
        "missing": "Not Found",
        "truncated": "bytes of",
        "wrong": "sha256 of what came is wrong",
        "hangs": "no answer within 0.5 s|timed out",
        "endless": "sent more than 1048576 bytes",
        "drips": "too slowly",
    }.items(),
)
def test_fetch_says_why_and_leaves_nothing(serve, tmp_path, bad, reason):
    start = time.monotonic()
    with pytest.raises(ValueError, match=reason):
        mnist.fetch("mnist", tmp_path / "cache", serve(bad))
    assert time.monotonic() - start < 5
    assert everything_in(tmp_path / "cache") == []


def test_fetch_replaces_a_damaged_cached_file(serve, tmp_path):
    sources = serve("good")
    folder = mnist.fetch("mnist", tmp_path / "cache", sources)
    good = (folder / mnist.FILES[0]).read_bytes()
    (folder / mnist.FILES[0]).write_bytes(good[:100])
    mnist.fetch("mnist", tmp_path / "cache", sources)
    assert (folder / mnist.FILES[0]).read_bytes() == good


def test_fetch_says_that_a_cache_cannot_be_used(serve, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot be used as a cache"):
        mnist.fetch("mnist", tmp_path / "file", serve("good"))


def test_a_redirect_does_not_leave_https():
    handler = mnist._StayOnHttps()
    request = urllib.request.Request("https://example.org/a")
    arguments = (request, None, 302, "Found", {})
    with pytest.raises(OSError, match="not https"):
        handler.redirect_request(*arguments, "http://example.org/a")
    assert handler.redirect_request(*arguments, "https://example.org/b")


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert mnist.cache_folder().parent == tmp_path
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert mnist.cache_folder().parent == tmp_path / ".cache"
