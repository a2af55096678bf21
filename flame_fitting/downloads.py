"""Files from the web: whole, and only what was expected, or not at all."""

import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

from flame_fitting import progress
from flame_fitting.files import atomic_write

OFFLINE_VARIABLE = "FLAME_FITTING_OFFLINE"
"""Where it is set, nothing is downloaded."""
_SECONDS = 30.0
"""A server that says nothing for so long is not there."""
_CHUNK = 1 << 20


def download(url: str, target: Path, check: Callable[[Path], None], size: int | None = None) -> None:
    """Downloads a file, which `check` may refuse by raising; `size` in bytes is shown where the server gives none.

    Raises OSError where the network or the disk fails or `OFFLINE_VARIABLE` is set, ValueError where what came is a
    web page or not all of the file.
    """
    if os.environ.get(OFFLINE_VARIABLE):
        raise OSError(f"{OFFLINE_VARIABLE} is set")
    request = urllib.request.Request(url, headers={"User-Agent": "flame-fitting"})
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer, atomic_write(target) as temporary:
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise ValueError("a web page came instead of the file")
        said = answer.headers.get("Content-Length", "")
        length = int(said) if said.isdigit() else None
        with open(temporary, "wb") as out, progress.Bar(length or size, target.name, "B") as bar:
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                bar.advance(len(chunk))
        if length is not None and temporary.stat().st_size != length:
            raise ValueError(f"it ended after {temporary.stat().st_size} of {length} bytes")
        check(temporary)
