"""report.html: one page with the numbers and the pictures of a fit, which opens from the disk and asks nobody."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_fitting.files import atomic_write
from flame_fitting.report import page as parts
from flame_fitting.report.error_maps import HIDDEN, TOP_MM
from flame_fitting.report.figures import SCALE
from flame_fitting.report.glossary import TERMS
from flame_fitting.report.page import Page
from flame_fitting.report.settings import settings_of
from flame_fitting.report.summary import FitSummary, summary_of
from flame_fitting.report.tables import COLUMNS, summary_rows
from flame_fitting.report.usual_range import judgements
from flame_fitting.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
SANITY = {
    "triangles": {"triangles": "all", "flipped": "inside out", "smoothed": "smoothed as they were"},
    "triangles that pass through others": {
        "crossing": "fitted",
        "crossing_without_offsets": "without offsets",
        "crossing_template": "template",
    },
    "vertices": {"vertices": "all", "at_cap": "at the offsets' limit"},
    "static offset, mm": {"offset_mm_max": "largest"},
}
"""Columns of the table about the mesh, by their groups."""


@cache
def environment() -> "Environment":
    """Templates that escape whatever they are given."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters["words"] = lambda name: str(name).replace("_", " ")
    made.filters["rgb"] = lambda color: f"rgb({', '.join(map(str, color))})"
    for use in (parts.jpeg, parts.jpeg_file, parts.line_png, parts.dots, parts.when):
        made.filters[use.__name__] = use
    made.globals |= {"terms": TERMS, "scale": SCALE, "top_mm": TOP_MM, "hidden": (HIDDEN,) * 3}
    return made


def cards(summaries: Sequence[FitSummary]) -> str:
    """A card for each fit, as HTML: thumbnail, key numbers, how many warnings, a link. `style` belongs to it."""
    module: Any = environment().get_template("parts.html").module
    return "".join(str(module.card(one)) for one in summaries)


def style() -> str:
    """The style sheet of pages and cards."""
    return (_TEMPLATES / "style.css").read_text(encoding="utf-8")


def write_html(path: Path, page: Page) -> None:
    """Writes the page; pictures are embedded, videos and files in its folder are linked."""
    metrics = page.metrics
    folder, regions = path.parent, metrics.get("regions", {})
    text = (
        environment()
        .get_template("report.html")
        .render(
            page=page,
            metrics=metrics,
            style=style(),
            script=(_TEMPLATES / "script.js").read_text(encoding="utf-8"),
            card=cards([summary_of(metrics, page.name, folder)]),
            rows=summary_rows(metrics),
            judgements=judgements(metrics),
            columns=[(key, title) for key, title in COLUMNS if any(key in values for values in regions.values())],
            verdicts={
                name: parts.region_verdicts(name, values.get("to_avatar_mm")) for name, values in regions.items()
            },
            sanity=SANITY,
            charts=[one for stage in page.stages if (one := parts.chart(stage)) is not None],
            texture=None if page.texture is None else parts.small_texture(page.texture),
            links=parts.links(folder, page.videos),
            settings=settings_of(page.made, metrics.get("stages", {})),
            most_moments=parts.MOST_MOMENTS,
            version=__version__,
        )
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
