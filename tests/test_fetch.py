"""A download ends with the right file under its name, or with one sentence and nothing there."""

import errno
import hashlib
import io
import logging
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from file_server import FileServer, serving
from leandetr import fetch as module
from leandetr.errors import CheckpointError, NetworkUnavailable
from leandetr.fetch import cache_folder, fetch
from leandetr.meter import shown, tell

CONTENT = bytes(range(256)) * 40
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LEANDETR_CACHE", str(folder))
    return folder


@pytest.fixture
def server():
    with serving(FileServer(CONTENT)) as running:
        yield running


def held(cache: Path) -> dict[str, int]:
    """Names and sizes of what lies in the cache, but for locks and the server's tags."""
    return {
        path.name: path.stat().st_size
        for path in cache.iterdir()
        if not path.name.endswith((".lock", ".tag"))
    }


def test_a_file_is_fetched_once_and_checked(server, cache, caplog):
    caplog.set_level(logging.INFO)
    path = fetch(server.url, sha256=HASH[:8], size=len(CONTENT))
    assert path == cache / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert f"0.0 MB, sha256 {HASH} (as published)" in caplog.text
    assert fetch(server.url, sha256=HASH[:8]) == path
    assert len(server.asked) == 1
    assert held(cache) == {"weights.pth": len(CONTENT)}
    assert not (cache / "weights.pth.part.tag").exists()


def test_without_a_published_hash_the_hash_is_told(server, caplog):
    caplog.set_level(logging.INFO)
    fetch(server.url, name="other.pth")
    assert f"other.pth: 0.0 MB, sha256 {HASH} (no published one to compare with)" in caplog.text


def test_redirects_are_followed(server):
    server.redirects = 2
    assert fetch(server.url).read_bytes() == CONTENT


def test_a_server_that_does_not_tell_the_length_is_believed(server):
    server.tells_length = False
    assert fetch(server.url).read_bytes() == CONTENT


@pytest.mark.parametrize(("tag", "sha256"), [('"v1"', None), (None, HASH[:8]), ('W/"v1"', HASH)])
def test_a_broken_download_is_gone_on_with(server, cache, tag, sha256):
    server.tag, server.stop_after = tag, 4000
    with pytest.raises(NetworkUnavailable, match="broke off after 4000 of 10240 bytes; run the"):
        fetch(server.url, sha256=sha256)
    assert held(cache) == {"weights.pth.part": 4000}
    server.stop_after = 1000
    with pytest.raises(NetworkUnavailable, match="broke off after 5000 of 10240 bytes"):
        fetch(server.url, sha256=sha256)
    server.stop_after = None
    assert fetch(server.url, sha256=sha256).read_bytes() == CONTENT
    assert [asked.get("Range") for asked in server.asked] == [None, "bytes=4000-", "bytes=5000-"]
    assert held(cache) == {"weights.pth": len(CONTENT)}


@pytest.mark.parametrize("change", [{"tag": '"v2"'}, {"ranges": False}])
def test_a_file_that_changed_or_a_server_without_ranges_begins_anew(server, change):
    server.stop_after = 4000
    server.content = b"old" * 3000
    with pytest.raises(NetworkUnavailable):
        fetch(server.url)
    server.stop_after, server.content = None, CONTENT
    for name, value in change.items():
        setattr(server, name, value)
    assert fetch(server.url, sha256=HASH).read_bytes() == CONTENT


def test_what_nobody_can_compare_begins_anew(server):
    server.tag, server.stop_after = None, 4000
    with pytest.raises(NetworkUnavailable):
        fetch(server.url)
    server.stop_after = None
    assert fetch(server.url).read_bytes() == CONTENT
    assert "Range" not in server.asked[-1]


def test_a_part_longer_than_the_file_begins_anew(server, cache):
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(bytes(len(CONTENT) + 5))
    assert fetch(server.url, sha256=HASH).read_bytes() == CONTENT


def test_a_server_that_answers_another_range_is_asked_for_all(server, cache, monkeypatch):
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(b"12345")
    opened = urllib.request.urlopen

    def shifted(request, timeout):
        response = opened(request, timeout=timeout)
        if response.headers.get("Content-Range"):
            response.headers.replace_header("Content-Range", "bytes 7-9/10")
        return response

    monkeypatch.setattr(urllib.request, "urlopen", shifted)
    assert fetch(server.url, sha256=HASH).read_bytes() == CONTENT


def test_a_wrong_part_is_found_by_the_hash_and_removed(server, cache):
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(bytes(4000))
    with pytest.raises(CheckpointError, match=r"sha256 begins with .{8}, expected .{8}; try again"):
        fetch(server.url, sha256=HASH[:8])
    assert held(cache) == {}
    assert fetch(server.url, sha256=HASH[:8]).read_bytes() == CONTENT


def test_another_file_is_not_kept(server, cache):
    with pytest.raises(CheckpointError, match=f"begins with {HASH[:8]}, expected 00000000"):
        fetch(server.url, sha256="00000000")
    assert held(cache) == {}


def test_another_size_is_refused_before_it_is_sent(server, cache):
    with pytest.raises(CheckpointError, match=r"has 10240 bytes, expected 7; find it at the zoo"):
        fetch(server.url, size=7, page="the zoo")
    assert held(cache) == {}


def test_a_file_that_is_gone_names_the_page(server, cache):
    server.status = 404
    with pytest.raises(NetworkUnavailable) as caught:
        fetch(server.url, page="https://zoo.example")
    assert f"{server.url} is not there (HTTP 404 Not Found)" in str(caught.value)
    assert f"find weights.pth at https://zoo.example and put it at {cache}" in str(caught.value)


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_server_that_refuses_is_quoted(server, cache, status):
    server.status = status
    with pytest.raises(NetworkUnavailable, match=f"refuses weights.pth .HTTP {status} .*by hand"):
        fetch(server.url)
    assert held(cache) == {}


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_not_taken_for_the_file(server, cache, kind):
    server.kind, server.content = kind, b"\n<!DOCTYPE html><html>Please log in</html>"
    with pytest.raises(NetworkUnavailable, match="answered with a web page instead of the file"):
        fetch(server.url)
    assert held(cache) == {}


def test_without_network_one_sentence_names_url_and_place(cache):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/w.pth"
        with pytest.raises(NetworkUnavailable) as caught:
            fetch(url, otherwise="pass its path")
    message = str(caught.value)
    assert f"fetch {url} by hand and put it at {cache / 'w.pth'}, or pass its path" in message
    assert "Connection refused" in message
    assert "\n" not in message
    assert held(cache) == {}


def test_a_silent_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    server.gate = threading.Event()
    with pytest.raises(NetworkUnavailable, match=r"cannot download weights.pth \(.*timed out"):
        fetch(server.url)


def test_a_full_disk_leaves_nothing(server, cache, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = Path.open

    def full(self, mode="r", *rest, **named):
        file = opened(self, mode, *rest, **named)
        if self.suffix == ".part" and mode in ("ab", "wb"):
            file.close()
            return Full()
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(
        CheckpointError, match=r"No space left on device\); make room there, or set"
    ):
        fetch(server.url, sha256=HASH)
    assert held(cache) == {}
    assert not (cache / "weights.pth.part.tag").exists()


def test_a_disk_that_is_too_small_is_told_at_once(server, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(CheckpointError, match=r"needs 0.0 MB and its disk has 0.0 MB left"):
        fetch(server.url)
    assert held(cache) == {}


def test_a_cache_that_cannot_be_made_is_named(server, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match=r"cannot be written \(File exists.*LEANDETR_CACHE"):
        fetch(server.url)


def test_an_interrupted_download_keeps_what_came(server, cache, monkeypatch):
    opened = urllib.request.urlopen

    def interrupted(request, timeout):
        response = opened(request, timeout=timeout)
        reads = iter([response.read(3000)])

        def read(_):
            for chunk in reads:
                return chunk
            raise KeyboardInterrupt

        response.read = read
        return response

    with monkeypatch.context() as patched:
        patched.setattr(urllib.request, "urlopen", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(server.url)
    assert held(cache) == {"weights.pth.part": 3000}
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.asked[-1]["Range"] == "bytes=3000-"


def test_a_damaged_file_in_the_cache_is_named(cache):
    cache.mkdir()
    (cache / "w.pth").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"w.pth is damaged.*delete it"):
        fetch("http://127.0.0.1:1/w.pth", sha256=HASH[:8])


def test_of_two_processes_one_downloads(server, cache):
    server.gate = threading.Event()
    code = "import sys; from leandetr.fetch import fetch; print(fetch(sys.argv[1]).stat().st_size)"
    command = [sys.executable, "-c", code, server.url]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    threading.Timer(1.0, server.gate.set).start()
    told = [process.communicate(timeout=60)[0] for process in both]
    assert told == ["10240\n"] * 2
    assert len(server.asked) == 1
    assert held(cache) == {"weights.pth": len(CONTENT)}


def test_who_waits_is_told(server, caplog):
    server.gate = threading.Event()
    others = [threading.Thread(target=fetch, args=(server.url,)) for _ in range(2)]
    for thread in others:
        thread.start()
    threading.Timer(0.5, server.gate.set).start()
    for thread in others:
        thread.join(20)
    assert "another process is downloading weights.pth; waiting for it" in caplog.text
    assert len(server.asked) == 1


def test_a_terminal_sees_a_bar_and_the_result(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with shown("weights.pth", 5_000_000, 10_000_000) as advance:
        advance(5_000_000)
    tell("weights.pth: [ok] 10.0 MB")
    said = capsys.readouterr().err
    assert "weights.pth" in said
    assert "10.0/10.0 MB" in said
    assert "weights.pth: [ok] 10.0 MB" in said


def test_the_cache_lies_in_the_home_folder_unless_told(monkeypatch, tmp_path):
    monkeypatch.delenv("LEANDETR_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "leandetr"
