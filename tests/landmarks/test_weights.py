"""Files of weights: found, downloaded from a server of the test's own, missing."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flame_fitting.downloads import OFFLINE_VARIABLE
from flame_fitting.errors import InputError
from flame_fitting.landmarks.weights import (
    WeightFile,
    check_hash,
    download,
    find_weights,
    need_weights,
    weight_folder,
)

CONTENT = b"weights" * 1000
FILE = WeightFile("Toy", ("toy.pth", "toy-old.pth"), 12, "--toy-weights")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in (FILE.variable, OFFLINE_VARIABLE, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


@pytest.fixture
def server():
    """Where it is, and what it answers: by path, (body, type, length that it says)."""
    answers = {
        "/toy.pth": (CONTENT, "application/octet-stream", len(CONTENT)),
        "/page": (b"<html>sign in</html>", "text/html; charset=utf-8", 20),
        "/cut": (CONTENT[:100], "application/octet-stream", len(CONTENT)),
    }
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path not in answers:
                self.send_error(404)
                return
            body, kind, length = answers[self.path]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def test_files_are_found_in_their_order(home, monkeypatch):
    assert find_weights(FILE) is None
    other, own, named = (home / name for name in ("other", "own", "named"))
    for folder in (other, own, named, weight_folder()):
        folder.mkdir(parents=True)
    (other / "toy-old.pth").write_bytes(b"1")
    assert find_weights(FILE, None, [other]) == other / "toy-old.pth"
    (weight_folder() / "toy.pth").write_bytes(b"2")
    assert find_weights(FILE, None, [other]) == weight_folder() / "toy.pth"
    (named / "toy.pth").write_bytes(b"3")
    monkeypatch.setenv("FLAME_FITTING_TOY_WEIGHTS", str(named))
    assert find_weights(FILE) == named / "toy.pth"
    (own / "any.bin").write_bytes(b"4")
    assert find_weights(FILE, own / "any.bin") == own / "any.bin"
    with pytest.raises(InputError, match=r"own: no toy\.pth or toy-old\.pth there.*--toy-weights"):
        find_weights(FILE, own)
    with pytest.raises(InputError, match=r"absent\.pth: no such file"):
        find_weights(FILE, home / "absent.pth")


def test_a_file_is_downloaded_once_and_its_hash_is_held_to(server):
    address, asked = server
    digest = hashlib.sha256(CONTENT).hexdigest()
    known = replace(FILE, url=f"{address}/toy.pth", sha256=digest[:10])
    for _ in range(2):
        path = need_weights(known)
        assert path == weight_folder() / "toy.pth" and path.read_bytes() == CONTENT
    assert asked == ["/toy.pth"]
    assert not path.with_name("toy.pth.sha256").exists()


def test_without_a_published_hash_the_first_ones_is_noted(server):
    address, _ = server
    unknown = replace(FILE, url=f"{address}/toy.pth")
    path = need_weights(unknown)
    note = path.with_name("toy.pth.sha256")
    assert note.read_text().split() == [hashlib.sha256(CONTENT).hexdigest(), "toy.pth"]
    path.unlink()
    note.write_text("0" * 64 + "  toy.pth\n")
    with pytest.raises(ValueError, match="SHA-256"):
        download(unknown, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("place", "why"), [("/page", "web page"), ("/cut", "after 100 of|IncompleteRead"), ("/gone", "404")]
)
def test_what_is_not_the_file_is_refused_and_nothing_stays(server, place, why):
    address, _ = server
    with pytest.raises(InputError, match=why) as error:
        need_weights(replace(FILE, url=f"{address}{place}"))
    assert "toy.pth" in str(error.value) and "12 MB" in str(error.value) and "mediapipe" in str(error.value)
    assert not weight_folder().exists() or not list(weight_folder().iterdir())


def test_another_hash_is_refused(server):
    address, _ = server
    with pytest.raises(InputError, match="SHA-256"):
        need_weights(replace(FILE, url=f"{address}/toy.pth", sha256="123456"))
    assert not list(weight_folder().iterdir())


def test_without_a_network_the_message_says_all(server, monkeypatch):
    address, asked = server
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    with pytest.raises(InputError) as error:
        need_weights(replace(FILE, url=f"{address}/toy.pth"))
    text = str(error.value)
    assert all(part in text for part in (str(weight_folder() / "toy.pth"), "12 MB", "--toy-weights", "mediapipe"))
    assert asked == []
    monkeypatch.delenv(OFFLINE_VARIABLE)
    with pytest.raises(InputError, match=r"could not be downloaded from http://127\.0\.0\.1:9/"):
        need_weights(replace(FILE, url="http://127.0.0.1:9/toy.pth"))


def test_a_file_is_compared_with_what_is_published(home):
    (home / "a").write_bytes(CONTENT)
    check_hash(replace(FILE, sha256=hashlib.sha256(CONTENT).hexdigest()), home / "a")
    with pytest.raises(ValueError, match="SHA-256"):
        check_hash(replace(FILE, sha256="ab" * 32), home / "a")
