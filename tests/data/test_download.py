"""Downloads, from a server on loopback."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest

from core.data import download, idx
from core.errors import UserError
from tests.conftest import write_idx_folder


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
    monkeypatch.setattr(download, "OPEN_SECONDS", 0.5)
    monkeypatch.setattr(download, "MAX_DOWNLOAD", 2**20)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    folder = write_idx_folder(tmp_path / "origin", *digits, gz=True)
    files = {name: (folder / name).read_bytes() for name in download.FILES}
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
            for n in download.FILES
        )
        digests = tuple(digest.hexdigest() for digest in digests)
        source = download.Source(tuple(mirrors), "sha256", of_content, digests)
        return {"mnist": source}

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def everything_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("of_content", [True, False])
def test_fetch_downloads_verifies_and_caches(serve, tmp_path, digits, of_content):
    cache = tmp_path / "cache"
    folder = download.fetch("mnist", cache, serve("good", of_content=of_content))
    assert everything_in(cache) == sorted(download.FILES)
    np.testing.assert_array_equal(idx.load(folder)[0].images, digits[0].images)
    # The second time no server is asked.
    download.fetch("mnist", cache, serve("down", of_content=of_content))


@pytest.mark.parametrize(
    "bad",
    ["down", "missing", "truncated", "wrong", "hangs", "endless", "drips", "odd"],
)
def test_fetch_goes_to_the_next_mirror(serve, tmp_path, bad):
    cache = tmp_path / "cache"
    download.fetch("mnist", cache, serve(bad, "good"))
    assert everything_in(cache) == sorted(download.FILES)


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
    with pytest.raises(UserError, match=reason):
        download.fetch("mnist", tmp_path / "cache", serve(bad))
    assert time.monotonic() - start < 5
    assert everything_in(tmp_path / "cache") == []


def test_fetch_replaces_a_damaged_cached_file(serve, tmp_path):
    sources = serve("good")
    folder = download.fetch("mnist", tmp_path / "cache", sources)
    good = (folder / download.FILES[0]).read_bytes()
    (folder / download.FILES[0]).write_bytes(good[:100])
    with pytest.raises(
        UserError, match=f"refused.*, and .*{download.FILES[0]} is damaged"
    ):
        download.fetch("mnist", tmp_path / "cache", serve("down"))
    download.fetch("mnist", tmp_path / "cache", sources)
    assert (folder / download.FILES[0]).read_bytes() == good


def test_fetch_says_that_a_cache_cannot_be_used(serve, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be used as a cache"):
        download.fetch("mnist", tmp_path / "file", serve("good"))


def test_a_redirect_does_not_leave_https():
    handler = download._StayOnHttps()
    request = urllib.request.Request("https://example.org/a")
    arguments = (request, None, 302, "Found", {})
    with pytest.raises(OSError, match="not https"):
        handler.redirect_request(*arguments, "http://example.org/a")
    assert handler.redirect_request(*arguments, "https://example.org/b")


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download.cache_folder().parent == tmp_path
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_folder().parent == tmp_path / ".cache"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/mine")
    assert download.cache_folder().parent == tmp_path / "mine"
    monkeypatch.setattr(download.os.path, "expanduser", lambda path: path)
    with pytest.raises(UserError, match="expected a home for downloads"):
        download.cache_folder()


@pytest.mark.parametrize("hang", [False, True])
def test_a_closed_network_costs_at_most_ten_seconds(monkeypatch, tmp_path, hang):
    """Both where nothing answers a name look-up and where it fails at once."""
    assert 2 * download.OPEN_SECONDS <= 10  # for two mirrors; the test takes less
    if hang:
        monkeypatch.setattr(download, "OPEN_SECONDS", 0.5)

    def look_up(*arguments, **keywords):
        time.sleep(60 if hang else 0)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    start = time.monotonic()
    with pytest.raises(UserError, match="cannot download") as error:
        download.fetch("mnist", tmp_path)
    assert time.monotonic() - start < 2
    reason = "no answer within 0.5 s" if hang else "no such name"
    hosts = "storage.googleapis.com, ossci-datasets.s3.amazonaws.com"
    assert f"({hosts}: {reason})" in str(error.value) and len(str(error.value)) < 130
