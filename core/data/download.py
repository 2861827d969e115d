"""Download a published data set once, and verify what came.

Nothing is kept, or read from the cache, whose digest is not the published one.
"""

import gzip
import hashlib
import http.client
import io
import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

from core import progress
from core.data.idx import SPLITS
from core.errors import UserError

OPEN_SECONDS = 4  # to look up, connect and answer; the same for each silence after
SLOWEST_RATE = 10_000  # bytes a second, over any download longer than OPEN_SECONDS
MAX_DOWNLOAD = 64 * 2**20


class Source(NamedTuple):
    """Where a data set is published, and the digests of `FILES` as they must be."""

    mirrors: tuple[str, ...]
    algorithm: str
    of_content: bool  # digests are of the uncompressed bytes (a .gz can be repacked)
    digests: tuple[str, ...]


KINDS = ("images-idx3", "labels-idx1")
FILES = tuple(f"{split}-{kind}-ubyte.gz" for split in SPLITS for kind in KINDS)
SOURCES = {
    "mnist": Source(
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        "sha256",
        True,
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion_mnist": Source(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        "md5",
        False,
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
}


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME, or ~/.cache. UserError: nowhere."""
    base = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if base.startswith("~"):
        raise UserError(f"{base}: expected a home for downloads, set HOME")
    return Path(base) / "pure-tensorflow-vae"


def fetch(dataset: str, cache: Path, sources=SOURCES) -> Path:
    """The folder with a data set's verified files, downloaded if they are not there.

    UserError if no mirror gave the right bytes, or they could not be stored.
    """
    source, folder = sources[dataset], cache / dataset
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, digest in zip(FILES, source.digests, strict=True):
            path = folder / name
            if not (path.is_file() and digest == _digest(path.read_bytes(), source)):
                damaged = f", and {path} is damaged" * path.exists()
                _store(_from_mirrors(name, digest, source, damaged), path)
    except OSError as error:
        raise UserError(f"{folder}: cannot be used as a cache ({error})") from error
    return folder


def _store(content: bytes, path: Path) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _digest(content: bytes, source: Source) -> str:
    """What is compared with `source.digests`."""
    if source.of_content:
        try:
            content = gzip.open(io.BytesIO(content)).read(MAX_DOWNLOAD)
        except (OSError, EOFError, zlib.error):
            return "damaged"
    return hashlib.new(source.algorithm, content).hexdigest()


def _from_mirrors(name: str, digest: str, source: Source, damaged: str) -> bytes:
    failed = {}  # reason -> the hosts that it is of
    for mirror in source.mirrors:
        try:
            content = _download(mirror + name)
            if digest == _digest(content, source):
                return content
            reason = f"the {source.algorithm} of what came is wrong"
        except urllib.error.HTTPError as error:
            reason = str(error)
            error.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            reason = getattr(reason, "strerror", None) or str(reason)
        failed.setdefault(reason, []).append(urllib.parse.urlsplit(mirror).netloc)
    reasons = (f"{', '.join(hosts)}: {reason}" for reason, hosts in failed.items())
    raise UserError(f"cannot download {name} ({'; '.join(reasons)}){damaged}")


class _StayOnHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, url):
        if request.full_url.startswith("https:") and not url.startswith("https:"):
            raise OSError(f"redirects to {url}, which is not https")
        return super().redirect_request(request, file, code, message, headers, url)


def _download(url: str) -> bytes:
    """The body of a URL, with a progress bar; OSError if it stalls or has no end."""
    name, response = url.rpartition("/")[-1], _open(url)
    promised = int(response.headers.get("Content-Length") or 0)
    body, start = bytearray(), time.monotonic()
    with response, progress.bar(promised or None, "B", name, unit_scale=True) as bar:
        while chunk := response.read1(2**16):
            body += chunk
            bar.update(len(chunk))
            seconds = time.monotonic() - start
            if len(body) > MAX_DOWNLOAD:
                raise OSError(f"sent more than {MAX_DOWNLOAD} bytes")
            if seconds > OPEN_SECONDS and len(body) < SLOWEST_RATE * seconds:
                raise OSError(f"sent {len(body)} bytes in {seconds:.0f} s, too slowly")
    if promised and len(body) != promised:
        raise OSError(f"sent {len(body)} bytes of {promised}")
    return bytes(body)


def _open(url: str):
    """The response, or TimeoutError: to look up a name alone can hang for a minute."""
    opener, outcome = urllib.request.build_opener(_StayOnHttps), queue.SimpleQueue()

    def run():
        try:
            outcome.put(opener.open(url, timeout=OPEN_SECONDS))
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        response = outcome.get(timeout=OPEN_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {OPEN_SECONDS} s") from None
    if isinstance(response, Exception):
        raise response
    return response
