"""The one place that knows where files that ship, files that users bring, and caches are."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def asset_dir() -> Path:
    """Folder of the shipped assets: `asset/` in a checkout, `flame_fitting/asset/` in an installed wheel."""
    inside = _PACKAGE / "asset"
    return inside if inside.is_dir() else _PACKAGE.parent / "asset"


def open_head_path() -> Path:
    """The open head's FLAME-format file."""
    return asset_dir() / "open_head" / "open_head.npz"


def cache_dir() -> Path:
    """Folder for what can be computed again; `FLAME_FITTING_CACHE` or `~/.cache/flame-fitting`."""
    named = os.environ.get("FLAME_FITTING_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flame-fitting"
