"""A web server on this machine that sends one file, well or badly."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler

from local_server import listening


@dataclass
class FileServer:
    """`content` is what it sends; the rest is how. `asked` are the headers of each request."""

    content: bytes
    name: str = "weights.pth"
    stop_after: int | None = None  # bytes, then the connection is closed
    status: int = 200
    kind: str = "application/octet-stream"
    tag: str | None = '"v1"'
    ranges: bool = True
    tells_length: bool = True
    redirects: int = 0
    gate: threading.Event | None = None  # waits for it before it answers
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """The server runs while the block does, at `server.url`."""

    with listening(partial(answer, server)) as address:
        server.url = f"{address}/{server.name}"
        try:
            yield server
        finally:
            if server.gate is not None:
                server.gate.set()


def answer(server: FileServer, handler: BaseHTTPRequestHandler) -> None:
    """One request, as the server is set at that moment."""
    server.asked.append(dict(handler.headers.items()))
    if server.gate is not None:
        server.gate.wait(20)
    if server.redirects:
        server.redirects -= 1
        handler.send_response(302)
        handler.send_header("Location", f"{server.url}?moved={server.redirects}")
        handler.end_headers()
        return
    start = _start(handler, server)
    if start > len(server.content) - 1 and start:
        handler.send_error(416)
        return
    if server.status != 200:
        handler.send_error(server.status)
        return
    body = server.content[start:]
    handler.send_response(206 if start else 200)
    if start:
        last = len(server.content) - 1
        handler.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
    if server.tells_length:
        handler.send_header("Content-Length", str(len(body)))
    if server.tag is not None:
        handler.send_header("ETag", server.tag)
    handler.send_header("Content-Type", server.kind)
    handler.end_headers()
    handler.wfile.write(body if server.stop_after is None else body[: server.stop_after])


def _start(handler: BaseHTTPRequestHandler, server: FileServer) -> int:
    """The first byte asked for: 0 unless the server goes on with this version of the file."""
    wanted = handler.headers.get("Range")
    same = handler.headers.get("If-Range") in (None, server.tag)
    if wanted is None or not server.ranges or not same:
        return 0
    return int(wanted.removeprefix("bytes=").removesuffix("-"))
