"""report.html: one self-contained page with the numbers and the pictures of a fit."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flame_fitting.files import atomic_write
from flame_fitting.report.figures import Figure
from flame_fitting.report.tables import COLUMNS, summary_pairs

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; } th { font-weight: 600; }
figure { margin: 0 0 1.5rem; } img, video { max-width: 100%; border: 1px solid #ddd; } figcaption { color: #555; }
.warning { background: #fff4d6; border-left: 4px solid #e0a000; padding: .4rem .8rem; margin: .4rem 0; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; }
"""


def write_html(
    path: Path,
    title: str,
    metrics: dict[str, Any],
    figures: list[Figure],
    config_text: str = "",
    videos: Sequence[Path] = (),
) -> None:
    """Writes the page; pictures are embedded, videos in its folder are shown from there."""
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
        f"<style>{_STYLE}</style></head>",
        f"<body><h1>{html.escape(title)}</h1>",
    ]
    warnings = [str(text) for text in metrics.get("warnings", [])]
    parts += [f'<p class="warning">{html.escape(text)}</p>' for text in warnings] or ["<p>No warnings.</p>"]
    parts += ["<h2>Numbers</h2>", _rows([("", "value"), *summary_pairs(metrics)])]
    parts += ["<h2>Distances by region, mm</h2>", _region_table(metrics.get("regions", {}))]
    if metrics.get("stages"):
        parts += ["<h2>After each stage, face, fit to avatar, mm</h2>", _stage_table(metrics["stages"])]
    if metrics.get("sanity"):
        parts += ["<h2>Soundness of the mesh, by region</h2>", _sanity_table(metrics["sanity"])]
    if (swimming := metrics.get("over_time", {}).get("swimming")) is not None:
        parts += ["<h2>Swimming by region, sRGB levels of 255</h2>", _swimming_table(swimming["regions"])]
    if videos:
        parts.append("<h2>Over time: picture, fit, fitted mesh over the picture</h2>")
    for video in videos:
        name = html.escape(video.name)
        parts.append(f'<figure><video controls loop muted preload="metadata" src="{name}"></video>')
        parts.append(f"<figcaption>{name}</figcaption></figure>")
    parts.append("<h2>Pictures</h2>")
    for figure in figures:
        encoded = base64.b64encode(figure.path.read_bytes()).decode()
        caption = html.escape(figure.title)
        image = f'<img alt="{caption}" src="data:image/jpeg;base64,{encoded}">'
        parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    if metrics.get("seconds"):
        parts += [
            "<h2>Seconds</h2>",
            _rows([("stage", "s"), *((k, f"{v:.1f}") for k, v in metrics["seconds"].items())]),
        ]
    if config_text:
        parts += ["<h2>Configuration</h2>", f"<pre>{html.escape(config_text)}</pre>"]
    parts.append("</body></html>")
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _region_table(regions: dict[str, dict[str, Any]]) -> str:
    columns = [(key, title) for key, title in COLUMNS if any(key in values for values in regions.values())]
    if not columns:
        return "<p>The capture has no geometry to measure to.</p>"
    top = "".join(f'<th colspan="3">{html.escape(title)}</th>' for _, title in columns)
    second = "".join("<th>median</th><th>mean</th><th>95 %</th>" for _ in columns)
    body = ""
    for name, values in regions.items():
        cells = [values.get(key, {}).get(stat) for key, _ in columns for stat in ("median", "mean", "p95")]
        text = "".join(f"<td>{'-' if cell is None else f'{cell:.2f}'}</td>" for cell in cells)
        body += f"<tr><td>{html.escape(name.replace('_', ' '))}</td>{text}</tr>"
    return f"<table><tr><th></th>{top}</tr><tr><th>region</th>{second}</tr>{body}</table>"


def _stage_table(stages: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("stage", "median", "95 %", "kept", "s")]
    for name, record in stages.items():
        face = record.get("regions", {}).get("face", {}).get("to_avatar_mm", {})
        numbers = [f"{face[key]:.2f}" if key in face else "-" for key in ("median", "p95")]
        rows.append(
            (name, *numbers, "yes" if record.get("accepted", True) else "no", f"{record.get('seconds', 0):.1f}")
        )
    return _rows(rows)


def _sanity_table(sanity: dict[str, dict[str, Any]]) -> str:
    groups: dict[str, dict[str, str]] = {
        "triangles": {"triangles": "all", "flipped": "inside out", "smoothed": "smoothed as they were"},
        "triangles that pass through others": {
            "crossing": "fitted",
            "crossing_without_offsets": "without offsets",
            "crossing_template": "template",
        },
        "vertices": {"vertices": "all", "at_cap": "at the offsets' limit"},
        "static offset, mm": {"offset_mm_max": "largest"},
    }
    top = "".join(f'<th colspan="{len(columns)}">{html.escape(title)}</th>' for title, columns in groups.items())
    table = f"<table><tr><th></th>{top}</tr>"
    columns = {key: title for group in groups.values() for key, title in group.items()}
    table += "<tr><th>region</th>" + "".join(f"<th>{html.escape(title)}</th>" for title in columns.values()) + "</tr>"
    for name, values in sanity.items():
        cells = (f"{values[key]:.2f}" if isinstance(values[key], float) else str(values[key]) for key in columns)
        table += f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return table + "</table>"


def _swimming_table(regions: dict[str, dict[str, float]]) -> str:
    rows: list[tuple[str, ...]] = [("region", "all, median", "detail, median", "detail, 95 %", "texels")]
    for name, values in regions.items():
        keys = ("std_median", "detail_std_median", "detail_std_p95")
        rows.append((name.replace("_", " "), *(f"{values[key]:.1f}" for key in keys), str(values["texels"])))
    return _rows(rows)


def _rows(rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(rows[0], "th") + "".join(line(row, "td") for row in rows[1:]) + "</table>"
