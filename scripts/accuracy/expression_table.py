"""The table of identities x expressions: medians over persons, and the bars beside."""

from statistics import median
from typing import Any

Row = dict[str, Any]
COLUMNS = (
    # title, key, digits, bar
    ("face to avatar", "face_to_avatar_median_mm", 3, 0.05),
    ("lips p95", "lips_to_avatar_p95_mm", 2, 0.10),
    ("lids p95", "lids_to_avatar_p95_mm", 2, 0.10),
    ("neutral face", "neutral_face_mm", 2, 0.3),
    ("p95", "neutral_face_p95_mm", 2, 1.0),
    ("lips", "neutral_lips_mm", 2, 0.6),
    ("lids", "neutral_lids_mm", 2, 0.4),
    ("not aligned", "kept_face_mm", 2, None),
    ("vertex", "neutral_face_vertex_mm", 2, None),
    ("neutral lid gap", "neutral_gap_open_mm", 2, 0.7),
    ("neutral lip gap", "neutral_gap_lips_mm", 2, 0.5),
    ("field", "field_mm", 2, 0.5),
    ("field p95", "field_p95_mm", 2, None),
    ("field RMS", "field_rms_mm", 2, None),
    ("true RMS", "field_true_rms_mm", 2, None),
    ("gap shut", "gap_shut_mm", 2, 0.3),
    ("gap open", "gap_open_mm", 2, 0.7),
    ("lip gap", "gap_lips_mm", 2, 0.5),
    ("seen shut, %", "visible_shut_percent", 1, 2.0),
    ("in truth", "true_visible_shut_percent", 1, None),
    ("jaw, °", "jaw_deg", 1, 1.5),
    ("gaze, °", "gaze_deg", 1, 3.0),
    ("curves", "curves_mm", 2, 0.5),
    ("lips in lips p95", "lip_depth_p95_mm", 2, 0.2),
    ("lids in eyes p95", "lid_depth_p95_mm", 2, 0.2),
    ("lip triangles crossing", "lip_crossings", 0, None),
    ("in truth", "true_lip_crossings", 0, None),
    ("neutral's", "neutral_lip_crossings", 0, None),
    ("neutral's lid gap itself", "neutral_lid_gap_itself_mm", 2, None),
    ("neutral's lip gap itself", "neutral_lip_gap_itself_mm", 2, None),
    ("jaw itself, °", "jaw_itself_deg", 1, None),
    ("expr RMS", "expr_rms", 2, None),
    ("fit, s", "fit_seconds", 0, None),
)
BAR_RATIO = 3.0
TITLES = {"known": "Known truth", "anny": "Across models: anny's own heads", "pair": "Two files of one person"}


def table(rows: list[Row]) -> str:
    """Markdown; one column an expression, as there are more numbers than expressions."""
    parts = []
    for group, title in TITLES.items():
        here = [row for row in rows if row["group"] == group]
        if here:
            parts.append(f"### {title}\n\n" + _measures(here))
        among = [row for row in rows if row["group"] == "between" and row["of"] == group]
        if among:
            parts.append(_agreement(among))
    return "\n\n".join(parts)


def _measures(rows: list[Row]) -> str:
    failed = [row for row in rows if "error" in row]
    good = [row for row in rows if "error" not in row]
    names = list(dict.fromkeys(row["expression"] for row in rows))
    lines = [_line(["mm", "bar", *names, "all"]), _line(["---"] * (len(names) + 3))]
    for title, key, digits, bar in COLUMNS:
        cells = [_median([row for row in good if row["expression"] == name], key) for name in names]
        everything = _median(good, key)
        if everything is None:
            continue
        shown = [_number(value, digits, bar) for value in [*cells, everything]]
        lines.append(_line([title, "" if bar is None else f"{bar:g}", *shown]))
    text = "\n".join(lines)
    for row in failed:
        text += f"\n\n**failed**: {row['case']}: {row['error'][:200]}"
    return text


def _agreement(rows: list[Row]) -> str:
    """Within persons, between persons, and the ratio."""
    keys = ("face_median_mm", "face_p95_mm", "lips_median_mm", "eyelids_median_mm")
    lines = [_line(["neutral heads, vertex to vertex", "pairs", "face", "p95", "lips", "lids"]), _line(["---"] * 6)]
    values: dict[str, list[float | None]] = {}
    for kind in ("within", "between"):
        here = [row for row in rows if row["kind"] == kind]
        values[kind] = [_median(here, key) for key in keys]
        words = "of one person" if kind == "within" else "of two persons"
        lines.append(_line([words, str(len(here)), *(_number(value, 2, None) for value in values[kind])]))
    pairs = zip(values["within"], values["between"], strict=True)
    ratios = [None if a is None or b is None else b / max(a, 1e-6) for a, b in pairs]
    lines.append(_line([f"ratio (bar {BAR_RATIO:g})", "", *(_number(ratio, 1, None) for ratio in ratios)]))
    return "\n".join(lines)


def _median(rows: list[Row], key: str) -> float | None:
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    return median(values) if values else None


def _number(value: float | None, digits: int, bar: float | None) -> str:
    if value is None:
        return ""
    text = f"{value:.{digits}f}"
    return f"**{text}**" if bar is not None and round(value, digits) > bar else text


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
