"""A stand-in for the Hugging Face hub on this machine: repositories are dictionaries of files.

It speaks what `snapshot_download` needs: a repository's state, its tree, and its files.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler

from local_server import listening

API = re.compile(
    r"/api/models/(?P<repository>[^/]+/[^/]+)(/(?P<what>revision|tree)/(?P<rev>[^?]+))?"
)
FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<name>.+)")


@dataclass
class HubServer:
    """`repositories` maps owner/name to revision to files; `gated` are names that ask for more."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def commit(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The hash and files of a revision, or of the commit that has this hash."""
        for name, files in self.repositories.get(repository, {}).items():
            sha = hashlib.sha1(f"{repository}@{name}".encode()).hexdigest()
            if revision in (name, sha):
                return sha, files
        return None


@contextmanager
def serving(server: HubServer) -> Iterator[HubServer]:
    """The hub runs while the block does, at `server.url`."""

    with listening(partial(answer, server)) as server.url:
        yield server


def answer(server: HubServer, handler: BaseHTTPRequestHandler) -> None:
    """One request."""
    server.asked.append(f"{handler.command} {handler.path}")
    path = handler.path.partition("?")[0]
    found = API.fullmatch(path) or FILE.fullmatch(path)
    repository = found["repository"] if found else ""
    if repository in server.gated:
        return refuse(handler, 403, "GatedRepo")
    if found is None or repository not in server.repositories:
        return refuse(handler, 404, "RepoNotFound")
    commit = server.commit(repository, found["rev"] or "main")
    if commit is None:
        return refuse(handler, 404, "RevisionNotFound")
    sha, files = commit
    if found.re is FILE:
        if found["name"] not in files:
            return refuse(handler, 404, "EntryNotFound")
        return send(handler, files[found["name"]], sha)
    listed = [
        {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
        for name, content in files.items()
    ]
    state = {"id": repository, "sha": sha, "siblings": [], "tags": [], "private": False}
    return send(handler, json.dumps(listed if found["what"] == "tree" else state).encode(), sha)


def send(handler: BaseHTTPRequestHandler, content: bytes, sha: str) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.send_header("ETag", f'"{_oid(content)}"')
    handler.send_header("X-Repo-Commit", sha)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(content)


def refuse(handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
    handler.send_response(status)
    handler.send_header("X-Error-Code", code)
    handler.send_header("X-Error-Message", code)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
