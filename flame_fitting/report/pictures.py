"""How well the drawn fit agrees with the pictures: overlap of outlines and PSNR, as a whole and by timestep."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting import progress
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.export.neck_line import NeckCut, neck_cut
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.report.drawing import DrawnFit, drawn_fits

MAX_PSNR = 99.0
Watch = Callable[[View, Float[ndarray, "3 H W"], DrawnFit], None]
"""Is shown each view with its picture and the fit as it was drawn, timestep by timestep."""


@dataclass(frozen=True)
class ViewMeasure:
    """Sums over one view's pixels, to be pooled."""

    row: int
    """Of the timestep."""
    heldout: bool
    overlap: tuple[tuple[int, int], tuple[int, int]]
    """(both, either) of the outlines above the neck line, and above the sides of the neck."""
    squared: dict[str, tuple[float, int]]
    """Squared sRGB error and number of pixels, by what they belong to: `avatar`, `union`, `above` (of the avatar, above
    the sides of the neck), and `head` (of the fit, above the sides of the neck)."""


@dataclass
class PictureMeasures:
    """All views that were drawn."""

    views: list[ViewMeasure] = field(default_factory=list)
    has_masks: bool = False
    has_texture: bool = False

    def iou(self, line: int, of: Iterable[ViewMeasure] | None = None) -> float | None:
        """Overlap above the neck line (0) or the sides of the neck (1); None without alpha maps or pixels."""
        pairs = [one.overlap[line] for one in (self.views if of is None else of)]
        either = sum(pair[1] for pair in pairs)
        return sum(pair[0] for pair in pairs) / either if either and self.has_masks else None

    def psnr(self, kind: str, of: Iterable[ViewMeasure]) -> float | None:
        """Pooled over views; None without a texture or pixels."""
        return pooled_psnr([one.squared[kind] for one in of]) if self.has_texture else None

    def without(self, rows: Collection[int]) -> "PictureMeasures":
        """Those of other timesteps."""
        return replace(self, views=[one for one in self.views if one.row not in rows])

    def as_metrics(self) -> dict[str, float | None]:
        """The keys of metrics.json."""
        apart = [one for one in self.views if one.heldout]
        return {
            "silhouette_iou": self.iou(0),
            "silhouette_iou_head": self.iou(1),
            "psnr_heldout_db": pooled_psnr([one.squared["avatar"] for one in apart]),
            "psnr_heldout_union_db": pooled_psnr([one.squared["union"] for one in apart]),
            "psnr_heldout_above_neck_db": pooled_psnr([one.squared["above"] for one in apart]),
        }


def measure_pictures(
    fit: FitResult, capture: Capture, head: HeadModel, views: list[View], watch: Watch | None = None
) -> PictureMeasures:
    """Draws the fit in `views` and compares; memory does not grow with their number."""
    up = np.linalg.inv(fit.head_from_world)[:3, 1]
    up /= np.linalg.norm(up)
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    found = PictureMeasures(
        has_masks=bool(views) and views[0].mask_path is not None, has_texture=fit.texture is not None
    )
    cuts: dict[int, tuple[NeckCut | None, NeckCut | None]] = {}

    @lru_cache(maxsize=1)
    def posed(row: int) -> ndarray:
        return fit.vertices_world(head, [row])[0]

    with progress.Bar(len(views), "evaluate", "view") as bar:
        for view, picture in drawn_fits(fit, head, capture, views, posed, geometry=watch is not None):
            row = rows[view.timestep]
            if row not in cuts:
                cuts = {row: (neck_cut(head, posed(row), up), neck_cut(head, posed(row), up, at_sides=True))}
            image, alpha = capture.image_and_alpha(view)
            found.views.append(_measured(view, row, image, alpha, picture, cuts[row]))
            if watch is not None:
                watch(view, image, picture)
            bar.advance()
    return found


def _measured(
    view: View,
    row: int,
    image: Float[ndarray, "3 H W"],
    alpha: Float[ndarray, "H W"],
    picture: DrawnFit,
    cuts: tuple[NeckCut | None, NeckCut | None],
) -> ViewMeasure:
    seen, fitted = alpha > 0.5, to_uint8(picture.alpha[0]) > 127.5
    line, sides = (_above(cut, view) for cut in cuts)
    error = ((picture.image[0].astype(np.float64) - image) ** 2).mean(axis=0)
    masks = {"avatar": seen, "union": seen | fitted, "above": seen & sides, "head": fitted & sides}
    return ViewMeasure(
        row=row,
        heldout=view.role == "heldout",
        overlap=(
            (int((seen & fitted & line).sum()), int(((seen | fitted) & line).sum())),
            (int((seen & fitted & sides).sum()), int(((seen | fitted) & sides).sum())),
        ),
        squared={name: (float(error[mask].sum()), int(mask.sum())) for name, mask in masks.items()},
    )


def _above(cut: NeckCut | None, view: View) -> ndarray:
    if cut is None:
        return np.ones((view.height, view.width), dtype=bool)
    return cut.keep(view.K, view.world_to_camera, view.width, view.height) > 0.5


def pooled_psnr(sums: list[tuple[float, int]]) -> float | None:
    """PSNR in dB of values in 0..1 from (sum of squared errors, count) of each picture; None without a pixel."""
    count = sum(n for _, n in sums)
    if count == 0:
        return None
    mean = sum(s for s, _ in sums) / count
    return MAX_PSNR if mean <= 10 ** (-MAX_PSNR / 10) else float(-10 * np.log10(mean))


def picture_metrics(fit: FitResult, capture: Capture, head: HeadModel) -> dict[str, float | None]:
    """`PictureMeasures.as_metrics` of all fit and held-out views."""
    return measure_pictures(fit, capture, head, capture.views_of("fit", "heldout")).as_metrics()
