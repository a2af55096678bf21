"""The metrics as text: a table for the terminal."""

from typing import Any, NamedTuple

from flame_fitting.fit.not_at_rest import in_a_line

COLUMNS = (
    ("to_avatar_mm", "fit to avatar, mm"),
    ("from_avatar_mm", "avatar to fit, mm"),
    ("to_truth_mm", "vertex to truth, mm"),
)
_STATS = ("median", "mean", "p95")
_HEADS = ("median", "mean", "95 %")
_MOMENTS = 12
"""Moments of one person that are listed at most; metrics.json has all."""
_MANY_HIDDEN = 0.05
"""Share of a region's vertices from which the summary says that it is hidden."""


def metrics_table(metrics: dict[str, Any]) -> str:
    """Regions by median, mean and 95 % of each distance, and the other numbers below."""
    regions: dict[str, dict[str, Any]] = metrics.get("regions", {})
    columns = [(key, title) for key, title in COLUMNS if any(key in values for values in regions.values())]
    lines = []
    if columns:
        width = max([len(name) for name in regions] + [6])
        block = 3 * 8
        lines.append(" " * width + "".join(f"{title:>{block}}" for _, title in columns))
        lines.append(f"{'region':<{width}}" + "".join(f"{name:>8}" for _ in columns for name in _HEADS))
        for name, values in regions.items():
            cells = [_cell(values.get(key), stat) for key, _ in columns for stat in _STATS]
            lines.append(f"{name.replace('_', ' '):<{width}}" + "".join(f"{cell:>8}" for cell in cells))
        lines.append("")
    pairs = summary_pairs(metrics)
    longest = max((len(name) for name, _ in pairs), default=0)
    lines += [f"{name:<{longest}}  {value}" for name, value in pairs]
    return "\n".join(lines)


class Row(NamedTuple):
    """A number that is not by region."""

    key: str
    """In `glossary.TERMS`."""
    title: str
    text: str
    measure: str | None = None
    """In `usual_range.MEASURES`, where its range is known."""


def summary_pairs(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the numbers that are not by region."""
    return [(row.title, row.text) for row in summary_rows(metrics)]


def summary_rows(metrics: dict[str, Any]) -> list[Row]:
    """The numbers that are not by region."""
    rows = []
    landmarks = metrics.get("landmarks", {})
    for key, title, unit, measure in (
        ("reprojection_px", "landmarks", "px", "landmark_reprojection_px_at_512"),
        ("error_mm", "landmarks", "mm", None),
        ("spread_mm", "landmark spread over views", "mm", "landmark_spread_mm"),
    ):
        if key in landmarks:
            values = landmarks[key]
            rows.append(Row(key, title, f"{values['median']:.2f} {unit} (95 %: {values['p95']:.2f})", measure))
    for key, title, unit, digits, measure in (
        ("silhouette_iou", "silhouette IoU above the neck line", "", 3, None),
        ("silhouette_iou_head", "silhouette IoU above the sides of the neck", "", 3, "silhouette_iou"),
        ("psnr_heldout_db", "PSNR of held-out views", " dB", 1, None),
        ("psnr_heldout_above_neck_db", "PSNR of held-out views, above the neck", " dB", 1, "psnr_heldout_db"),
    ):
        if metrics.get(key) is not None:
            rows.append(Row(key, title, f"{metrics[key]:.{digits}f}{unit}", measure))
    rows += _over_time_rows(metrics.get("over_time", {}))
    moments = [
        (name, one["face_to_avatar_mm"])
        for name, one in metrics.get("moments", {}).items()
        if "face_to_avatar_mm" in one
    ]
    for name, face in moments[:_MOMENTS]:
        rows.append(Row("moment", f"face to avatar, {name}", f"{face['median']:.2f} mm (95 %: {face['p95']:.2f})"))
    shares = {name: r["hidden"] / r["vertices"] for name, r in metrics.get("regions", {}).items() if r.get("hidden")}
    many = [f"{name.replace('_', ' ')} {share:.0%}" for name, share in shares.items() if share >= _MANY_HIDDEN]
    if many:
        rows.append(Row("hidden", "hidden from all views, not measured", ", ".join(many)))
    if (flipped := metrics.get("flipped_triangles")) is not None:
        rows.append(Row("flipped_triangles", "flipped triangles on the face", str(flipped), "flipped_triangles"))
    if "not_at_rest" in metrics:
        rows.append(
            Row("not_at_rest", "not at rest", in_a_line(metrics["not_at_rest"], "moments" in metrics) or "nothing")
        )
    if "mm_per_unit" in metrics:
        source = str(metrics.get("scale_source"))
        if "mm_per_unit_by_face" in metrics:
            source += f"; by the face alone {metrics['mm_per_unit_by_face']:.4g} mm"
        rows.append(Row("scale", "scale", f"1 unit of the avatar = {metrics['mm_per_unit']:.4g} mm ({source})"))
    if sources := metrics.get("landmarks", {}).get("sources"):
        named = [f"{name} ({version})" if version else name for name, version in sources.items()]
        rows.append(Row("sources", "landmarks of", ", ".join(named)))
    if "head_model" in metrics:
        rows.append(Row("head_model", "head model", str(metrics["head_model"].get("name"))))
    return rows


def _over_time_rows(found: dict[str, Any]) -> list[Row]:
    if not found:
        return []
    names, rows = found["timestep_id"], []
    known = [(value, name) for value, name in zip(found["landmark_px"], names, strict=True) if value is not None]
    if known:
        value, name = max(known)
        rows.append(Row("worst_timestep", "worst timestep by its landmarks", f"{value:.2f} px ({name})"))
    faces = [name not in found["no_face"] for name in names]
    psnr = sorted(value for value, face in zip(found["psnr_db"], faces, strict=True) if face and value is not None)
    if psnr:
        text = f"{psnr[len(psnr) // 2]:.1f} dB ({psnr[0]:.1f} dB)"
        rows.append(Row("psnr_by_timestep", "PSNR by timestep, median (worst)", text))
    trembles = found["jitter_rms"]
    if trembles["vertices_mm"] is not None:
        turns = f"head {trembles['rotation_deg']:.2f}, jaw {trembles['jaw_deg']:.2f} degrees"
        text = f"face {trembles['vertices_mm']:.2f} mm, {turns}"
        rows.append(Row("jitter", "jitter (RMS second difference)", text))
    if (face := found.get("swimming", {}).get("regions", {}).get("face")) is not None:
        text = f"{face['detail_std_median']:.1f} of 255 (with the light {face['std_median']:.1f})"
        rows.append(Row("swimming", "swimming of the face's texture", text))
    if found["no_face"]:
        rows.append(Row("no_face", "timesteps without a face", f"{len(found['no_face'])} of {len(names)}"))
    for key, title in (("views_held_out", "views held out"), ("views_fitted", "views fitted")):
        if (part := found.get("heldout", {}).get(key)) is not None:
            said = [f"landmarks {part['landmark_px']['median']:.2f} px"] if part["landmark_px"] else []
            said += [f"PSNR {part['psnr_db']:.1f} dB"] if part["psnr_db"] is not None else []
            said += [f"IoU {part['iou']:.3f}"] if part["iou"] is not None else []
            rows.append(Row("heldout", title, ", ".join(said) or "-"))
    drawn = found.get("drawn")
    if drawn and drawn["views"] < drawn["of_views"]:
        rows.append(Row("drawn", "pictures that were drawn", f"{drawn['views']} of {drawn['of_views']}"))
    return rows


def _cell(values: dict[str, float] | None, stat: str) -> str:
    return "-" if not values or values.get(stat) is None else f"{values[stat]:.2f}"
