"""A fit in a few lines, for its page's head and for an index over many fits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flame_fitting.files import read_json_object
from flame_fitting.report.overlays import THUMBNAIL
from flame_fitting.report.usual_range import MEASURES, Judged, Verdict, judgements

KEY_NUMBERS = {
    "face_median_mm": "face, median",
    "face_p95_mm": "face, 95 %",
    "landmark_reprojection_px_at_512": "landmarks",
    "silhouette_iou": "outline IoU",
    "psnr_heldout_db": "PSNR, held out",
}
"""Of `usual_range.MEASURES`, with short names."""


@dataclass(frozen=True)
class KeyNumber:
    """A number of a card."""

    title: str
    text: str
    judged: Judged


@dataclass(frozen=True)
class FitSummary:
    """What a card shows of a fit."""

    name: str
    link: str
    """Of its page, relative to where the card stands; empty on the page itself."""
    thumbnail: Path | None
    numbers: list[KeyNumber] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """Of all: worrying where anything is warned of, good where all numbers are."""
        if self.warnings or any(one.judged.verdict == "worrying" for one in self.numbers):
            return "worrying"
        return "good" if all(one.judged.verdict == "good" for one in self.numbers) else "usual"


def summary_of(metrics: dict[str, Any], name: str, folder: Path, link: str = "") -> FitSummary:
    """Of metrics that were measured, with the thumbnail that lies in the fit's folder."""
    found = judgements(metrics)
    numbers = [
        KeyNumber(
            title, f"{found[key].value:.{3 if not MEASURES[key].unit else 2}f} {MEASURES[key].unit}".strip(), found[key]
        )
        for key, title in KEY_NUMBERS.items()
        if key in found
    ]
    picture = folder / "overlays" / THUMBNAIL
    warnings: Sequence[Any] = metrics.get("warnings", [])
    return FitSummary(name, link, picture if picture.is_file() else None, numbers, [str(text) for text in warnings])


def read_summary(folder: Path, name: str, link: str) -> FitSummary:
    """Of a fit that was evaluated before. Raises InputError where metrics.json is missing or damaged."""
    metrics = read_json_object(folder / "metrics.json", f"Run again: flame-fitting evaluate {folder}")
    return summary_of(metrics, name, folder, link)
