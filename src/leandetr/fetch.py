"""Files of public servers, kept in a cache folder: resumed, checked, whole or not there at all.

path = fetch("https://download.pytorch.org/models/resnet50-0676ba61.pth", sha256="0676ba61")
"""

import contextlib
import hashlib
import logging
import os
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError

from filelock import FileLock, Timeout

from leandetr.errors import CheckpointError, NetworkUnavailable
from leandetr.meter import megabytes, shown, tell

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up."""


@dataclass(frozen=True)
class _Wanted:
    """The file at `url`, where it goes, and what is known of it (see `fetch`)."""

    url: str
    path: Path
    sha256: str
    size: int | None
    page: str
    otherwise: str

    @property
    def part(self) -> Path:
        """What has come of it so far."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def tag(self) -> Path:
        """Which version of the file `part` is of, as the server calls it."""
        return self.path.with_name(f"{self.path.name}.part.tag")

    @property
    def by_hand(self) -> str:
        """What to do without a network."""
        more = f", or {self.otherwise}" if self.otherwise else ""
        return f"fetch {self.url} by hand and put it at {self.path}{more}"

    def forget(self) -> None:
        """Remove what has come."""
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where downloaded files are kept: `$LEANDETR_CACHE`, else `~/.cache/leandetr`."""
    chosen = os.environ.get("LEANDETR_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "leandetr"


def fetch(
    url: str,
    *,
    name: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    page: str = "",
    otherwise: str = "",
) -> Path:
    """The file at `url` in the cache, downloaded first if it is not there.

    `name` is that in the cache, by default the last part of the URL. `sha256` is the known
    beginning of its hash, `size` its bytes; None where nobody published them. `page` is where its
    publisher tells of it, `otherwise` one more way out for who has no network. What a broken
    download left is gone on with; of several processes one downloads and the others wait. Raises
    `NetworkUnavailable` where it cannot be had, `CheckpointError` where it is another file than
    it should be or cannot be written.
    """
    path = cache_folder() / (name or url.rsplit("/", 1)[-1])
    wanted = _Wanted(url, path, sha256 or "", size, page, otherwise)
    if not path.exists():
        with _writing(wanted):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.exists():  # else another process was faster
                _download(wanted)
                return path
    return _unchanged(wanted)


def _unchanged(wanted: _Wanted) -> Path:
    """The file in the cache. Raises `CheckpointError` if it is not the published one."""
    with wanted.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(wanted.sha256):
        raise CheckpointError(
            f"{wanted.path} is damaged: its sha256 begins with {found[:8]}, expected "
            f"{wanted.sha256}; delete it and run the command again, or put a good copy of "
            f"{wanted.url} there"
        )
    return wanted.path


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process at a time gets in; a killed one lets the next in."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another process is downloading %s; waiting for it", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(wanted: _Wanted) -> None:
    """Go on with the part, or begin it; give it its name once it is whole and the right file."""
    response, start = _answer(wanted)
    with contextlib.closing(response):
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        _check_size(wanted, start, total)
        with _writing(wanted):
            wanted.tag.write_text(_version(response))
        found = _receive(wanted, response, start, total)
    if not found.startswith(wanted.sha256):
        wanted.forget()
        raise CheckpointError(
            f"what {wanted.url} sent is not the file it should be: its sha256 begins with "
            f"{found[:8]}, expected {wanted.sha256}; try again, or put the file at {wanted.path}"
        )
    length = wanted.part.stat().st_size
    wanted.part.replace(wanted.path)
    wanted.forget()
    check = "as published" if wanted.sha256 else "no published one to compare with"
    tell(f"{wanted.path}: {megabytes(length)}, sha256 {found} ({check})")


def _answer(wanted: _Wanted) -> tuple[HTTPResponse, int]:
    """The server's answer, and how many bytes of the part it goes on from."""
    start = wanted.part.stat().st_size if wanted.part.exists() else 0
    version = wanted.tag.read_text() if wanted.tag.exists() else ""
    if start and (version or wanted.sha256):  # else nobody could tell one version from another
        condition = {"If-Range": version} if version else {}
        try:
            response = _open(wanted, {"Range": f"bytes={start}-"} | condition)
        except NetworkUnavailable as error:
            if getattr(error.__cause__, "code", 0) != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
        else:
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                return response, 0
            if str(response.headers.get("Content-Range")).startswith(f"bytes {start}-"):
                return response, start
            response.close()
    return _open(wanted, {}), 0


def _open(wanted: _Wanted, headers: dict[str, str]) -> HTTPResponse:
    request = urllib.request.Request(wanted.url, headers={"User-Agent": "leandetr"} | headers)  # noqa: S310
    try:
        with _network(wanted):
            response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310 - a published URL
    except HTTPError as error:
        error.close()
        raise NetworkUnavailable(_refused(wanted, error)) from error
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise NetworkUnavailable(_page_instead(wanted))
    return response


def _receive(wanted: _Wanted, response: HTTPResponse, start: int, total: int | None) -> str:
    """Append what the server sends to the part; returns the sha256 of all of it."""
    digest, size = hashlib.sha256(), start
    with _writing(wanted), wanted.part.open("ab" if start else "wb") as file:
        if start:
            with wanted.part.open("rb") as before:
                digest = hashlib.file_digest(before, "sha256")
        with shown(wanted.path.name, start, total) as advance:
            while True:
                with _network(wanted):
                    chunk = response.read(CHUNK)
                if not chunk:
                    break
                if not size and chunk.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
                    wanted.forget()
                    raise NetworkUnavailable(_page_instead(wanted))
                digest.update(chunk)
                size += file.write(chunk)
                advance(len(chunk))
    if total is not None and size < total:
        raise NetworkUnavailable(
            f"the download broke off after {size} of {total} bytes; run the same command again to "
            f"go on, or {wanted.by_hand}"
        )
    return digest.hexdigest()


@contextlib.contextmanager
def _network(wanted: _Wanted) -> Iterator[None]:
    """What goes wrong on the way is one sentence; answers of the server pass."""
    try:
        yield
    except HTTPError:
        raise
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = getattr(error, "reason", None) or error
        raise NetworkUnavailable(
            f"cannot download {wanted.path.name} ({reason}); {wanted.by_hand}"
        ) from error


@contextlib.contextmanager
def _writing(wanted: _Wanted) -> Iterator[None]:
    """What goes wrong on the disk is one sentence, and nothing is left there."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            wanted.forget()
        raise CheckpointError(
            f"{wanted.path} cannot be written ({error.strerror or error}); make room there, or "
            "set LEANDETR_CACHE to another folder"
        ) from error


def _check_size(wanted: _Wanted, start: int, total: int | None) -> None:
    """Ask before anything is downloaded if it is the published file and if there is room for it."""
    if total is None:
        return
    if wanted.size not in (None, total):
        raise CheckpointError(
            f"{wanted.url} is not the file it should be: it has {total} bytes, expected "
            f"{wanted.size}; find it{_at(wanted.page)} and put it at {wanted.path}"
        )
    free = shutil.disk_usage(wanted.path.parent).free
    if free < total - start:
        raise CheckpointError(
            f"{wanted.path} needs {megabytes(total - start)} and its disk has "
            f"{megabytes(free)} left; make room there, or set LEANDETR_CACHE to another folder"
        )


def _version(response: HTTPResponse) -> str:
    """What the server calls this version of the file, strong enough to go on with it later."""
    tag = response.headers.get("ETag") or ""
    strong = "" if tag.startswith("W/") else tag
    return strong or response.headers.get("Last-Modified") or ""


def _refused(wanted: _Wanted, error: HTTPError) -> str:
    said = f"HTTP {error.code} {error.reason}"
    if error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return (
            f"{wanted.url} is not there ({said}); find {wanted.path.name}{_at(wanted.page)} "
            f"and put it at {wanted.path}"
        )
    return f"the server refuses {wanted.path.name} ({said}); try again later, or {wanted.by_hand}"


def _page_instead(wanted: _Wanted) -> str:
    return (
        f"{wanted.url} answered with a web page instead of the file (a log-in page of the network, "
        f"say); {wanted.by_hand}"
    )


def _at(page: str) -> str:
    return f" at {page}" if page else " where its publisher keeps it now"
