"""Shows a GLB with three.js in headless Chromium and brings back pictures and posed vertices."""

import json
import re
import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
_FLAGS = ("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run")
_KINDS = {".html": "text/html", ".js": "text/javascript", ".json": "application/json", ".glb": "model/gltf-binary"}
_PATIENCE = 300.0
"""Seconds until a page that says nothing has hung."""


def shot(name: str, K: np.ndarray, world_to_camera: np.ndarray, size: tuple[int, int], **pose: Any) -> dict[str, Any]:
    """One picture of `size` (W, H) by a camera with OpenCV's axes; `pose` as page.html reads it."""
    width, height = size
    view = np.diag([1.0, -1.0, -1.0, 1.0]) @ world_to_camera
    near, far = 0.01, 100.0
    projection = np.array(
        [
            [2 * K[0, 0] / width, 0, 1 - 2 * K[0, 2] / width, 0],
            [0, 2 * K[1, 1] / height, 2 * K[1, 2] / height - 1, 0],
            [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, -1, 0],
        ]
    )
    lists = {"projection": projection.reshape(-1).tolist(), "view": view.reshape(-1).tolist()}
    return {"name": name, "size": [width, height], **lists, **pose}


def show(model: Path, modules: Path, shots: list[dict[str, Any]], lit: bool = False) -> dict[str, bytes]:
    """What the page posted by name: about.json, <name>.png and <name>.f32 of every shot, vertex.f32.

    Raises RuntimeError with the page's own words where it failed.
    """
    assert CHROMIUM is not None
    posted: dict[str, bytes] = {}
    finished = threading.Event()
    job = json.dumps({"shots": shots, "lit": lit}).encode()

    documented = _documented_function().encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path in ("/job.json", "/docs.js"):
                content = job if path == "/job.json" else documented
            elif path in ("/", "/model.glb") or path.startswith("/modules/"):
                file = FOLDER / "page.html" if path == "/" else model if path == "/model.glb" else modules / path[9:]
                if not file.is_file():
                    self.send_error(404)
                    return
                content = file.read_bytes()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", _KINDS.get(Path(path).suffix, "text/html"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            name = self.path.rsplit("/", 1)[1]
            posted[name] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            if name in ("done", "failed"):
                finished.set()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as profile:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        browser = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            in_time = finished.wait(_PATIENCE)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
            server.server_close()
    if not in_time or "failed" in posted:
        raise RuntimeError(posted.get("failed", b"the page has said nothing").decode())
    return posted


def _documented_function() -> str:
    """The function of the example in docs/outputs.md, as a module."""
    text = (FOLDER.parents[1] / "docs" / "outputs.md").read_text()
    found = re.search(r"^function openJaw.*?^}$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return f"export {found[0]}"
