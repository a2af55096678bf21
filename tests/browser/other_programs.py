"""Other programs that tests ask: npm packages and Blender, installed into the cache folder once, else skipped with the
reason."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flame_fitting import assets
from flame_fitting.downloads import OFFLINE_VARIABLE

NPM = ("gltf-validator@2.0.0-dev.3.10", "three@0.187.0")
BPY = "bpy==5.0.1"
_BPY_PYTHON = "3.11"
"""The one that wheels of it are for."""
_PATIENCE = 1800


def npm_modules() -> Path:
    """Folder with the packages `NPM`."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not there (Debian: apt-get install nodejs npm)")

    def install(folder: Path) -> None:
        _run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel", "error", *NPM])

    return _once("npm-" + "-".join(NPM), ", ".join(NPM) + " from npm", install) / "node_modules"


def blender(script: Path, *arguments: object) -> None:
    """Runs a script by a Python with PyPI's `bpy`, 1 GB; only FLAME_FITTING_SLOW=1 installs it."""
    name = BPY.replace("==", "-")
    if not _place(name).is_dir() and os.environ.get("FLAME_FITTING_SLOW") != "1":
        pytest.skip(f"{BPY} (PyPI, 1 GB) is not in {_place(name)}; FLAME_FITTING_SLOW=1 installs it")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = sys.executable if here == _BPY_PYTHON else shutil.which(f"python{_BPY_PYTHON}")
    if python is None:
        pytest.skip(f"{BPY} has wheels for Python {_BPY_PYTHON} alone, which is not there")

    def install(folder: Path) -> None:
        _run([python, "-m", "pip", "install", "-q", "--target", str(folder), BPY])
        _run([python, "-c", "import bpy"], {"PYTHONPATH": str(folder)})

    folder = _once(name, f"{BPY} from PyPI", install)
    _run([python, str(script), *map(str, arguments)], {"PYTHONPATH": str(folder)})


def _place(name: str) -> Path:
    return assets.cache_dir() / "tests" / name.replace("/", "-")


def _once(name: str, what: str, install: Callable[[Path], None]) -> Path:
    """A folder of the cache, which `install` fills where it is not there yet; skips where that fails."""
    folder = _place(name)
    if folder.is_dir():
        return folder
    if os.environ.get(OFFLINE_VARIABLE):
        pytest.skip(f"{what} would have to be installed, and {OFFLINE_VARIABLE} is set")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        try:
            install(made)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            pytest.skip(f"{what} could not be installed: {said.strip().splitlines()[-1][:300]}")
        try:
            made.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    return folder


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    whole = {**os.environ, **(environment or {})}
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PATIENCE, env=whole)
