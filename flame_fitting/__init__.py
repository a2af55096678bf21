"""Fits a FLAME head to any static 3D head avatar."""

from typing import TYPE_CHECKING, Any

from flame_fitting.version import __version__

__all__ = ["FitResult", "__version__", "fit_head"]

if TYPE_CHECKING:
    from flame_fitting.api import fit_head
    from flame_fitting.fit.result import FitResult


def __getattr__(name: str) -> Any:
    """Loads the API on first use: `import flame_fitting` alone stays light."""
    if name == "fit_head":
        from flame_fitting.api import fit_head

        return fit_head
    if name == "FitResult":
        from flame_fitting.fit.result import FitResult

        return FitResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
