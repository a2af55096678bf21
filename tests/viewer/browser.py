"""Headless Chromium with software WebGL, driven over its DevTools protocol."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run"),
    *("--remote-debugging-port=0", "--remote-allow-origins=*"),
)
PATIENCE = 300.0
"""Seconds until a browser that does not do what it should has hung: software WebGL on a machine that others use."""
_BESIDE = """(name) => {
  const label = [...document.querySelectorAll("label")].find((e) => e.textContent === name);
  return label && [...label.closest(".mantine-Flex-root").querySelectorAll("input")];
}"""
"""JavaScript: the inputs beside a name."""


class Browser:
    """One page. To be closed."""

    def __init__(self, url: str, size: tuple[int, int] = (1280, 800), scale: float = 1.0) -> None:
        """`size` px of CSS, each of which is so many of the screen's: few are drawn quickly."""
        from websockets.sync.client import connect

        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [
            CHROMIUM,
            *_FLAGS,
            f"--user-data-dir={self._profile.name}",
            f"--window-size={size[0]},{size[1]}",
            url,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = self._port(Path(self._profile.name) / "DevToolsActivePort")
        self._numbers = itertools.count(1)
        self._socket = connect(self._page(port, url), max_size=None)
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": scale, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **screen)

    def _port(self, file: Path) -> int:
        def there() -> int | None:
            return int(file.read_text().split()[0]) if file.is_file() and file.read_text() else None

        return until(there, "Chromium has opened no port")

    def _page(self, port: int, url: str) -> str:
        def page() -> str | None:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                found = [one for one in json.load(answer) if one["type"] == "page" and one["url"].startswith(url)]
            return found[0]["webSocketDebuggerUrl"] if found else None

        return until(page, "Chromium has no page")

    def call(self, method: str, **options: Any) -> Any:
        """One command of the protocol, and its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": options}))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE))
            if answer.get("id") == number:
                # a page that is still being made has no place for scripts yet
                return answer.get("result", {"result": {}})

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, text: str) -> None:
        """Until the page shows a text."""
        script = f"Boolean(document.body?.innerText.includes({json.dumps(text)}))"

        def there() -> bool:
            answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
            return answer["result"].get("value") is True

        until(there, f"the page does not show {text}")

    def screenshot(self) -> bytes:
        """PNG of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def go(self, url: str) -> None:
        """Shows another page."""
        self.call("Page.navigate", url=url)

    def click(self, text: str, kind: str = "button, [role=tab]") -> None:
        """Clicks on the element with this text."""
        self._press_found(
            f"""[...document.querySelectorAll({json.dumps(kind)})].find((e) => e.textContent.trim() === wanted)""", text
        )

    def tick(self, label: str) -> None:
        """Clicks on what can be set beside a name: a checkbox, a list."""
        self._press_found(f"({_BESIDE})(wanted)?.[0]", label)

    def choose(self, label: str, option: str) -> None:
        """Takes an option of a list."""
        self.tick(label)
        self.click(option, "[role=option]")

    def press(self, x: float, y: float) -> None:
        """Clicks on a place of the page, px."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def upload(self, path: Path) -> None:
        """Gives a file to the page's upload button."""
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        button = self.call("DOM.querySelector", nodeId=document, selector="input[type=file]")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=button, files=[str(path)])

    def download_to(self, folder: Path) -> None:
        """Says where files go that the page saves."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def _press_found(self, found: str, wanted: str) -> None:
        script = f"""(() => {{
          const wanted = {json.dumps(wanted)};
          const element = {found};
          if (!element) return null;
          element.scrollIntoView({{block: "center"}});
          const box = element.getBoundingClientRect();
          return box.width > 0 ? [box.x + box.width / 2, box.y + box.height / 2] : null;
        }})()"""
        before = None

        def still() -> list[float] | None:
            nonlocal before
            place, before = self.evaluate(script), before
            before, same = place, place is not None and place == before
            return place if same else None

        self.press(*until(still, f"nothing to click on says {wanted}"))

    def set(self, label: str, value: str) -> None:
        """Types a number beside the slider of this name."""
        script = f"""(() => {{
          const input = ({_BESIDE})({json.dumps(label)})?.pop();
          if (!input) return false;
          input.focus();
          input.select();
          return true;
        }})()"""
        until(lambda: self.evaluate(script), f"no slider is called {label}")
        self.call("Input.insertText", text=value)
        self.evaluate("document.activeElement.blur()")

    def close(self) -> None:
        """Ends it."""
        self._socket.close()
        self._process.terminate()
        self._process.wait()
        self._profile.cleanup()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def until(asked: Any, complaint: str) -> Any:
    """What `asked()` gives when it is neither None nor False."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = asked()
        if found is not None and found is not False:
            return found
        time.sleep(0.1)
    raise AssertionError(complaint)
