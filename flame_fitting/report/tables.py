"""The metrics as text: a table for the terminal."""

from typing import Any

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


def summary_pairs(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the numbers that are not by region."""
    pairs = []
    landmarks = metrics.get("landmarks", {})
    for key, title, unit in (
        ("reprojection_px", "landmarks", "px"),
        ("error_mm", "landmarks", "mm"),
        ("spread_mm", "landmark spread over views", "mm"),
    ):
        if key in landmarks:
            values = landmarks[key]
            pairs.append((title, f"{values['median']:.2f} {unit} (95 %: {values['p95']:.2f})"))
    for key, title in (
        ("silhouette_iou", "silhouette IoU above the neck line"),
        ("silhouette_iou_head", "silhouette IoU above the sides of the neck"),
    ):
        if metrics.get(key) is not None:
            pairs.append((title, f"{metrics[key]:.3f}"))
    for key, title in (
        ("psnr_heldout_db", "PSNR of held-out views"),
        ("psnr_heldout_above_neck_db", "PSNR of held-out views, above the neck"),
    ):
        if metrics.get(key) is not None:
            pairs.append((title, f"{metrics[key]:.1f} dB"))
    pairs += _over_time_pairs(metrics.get("over_time", {}))
    moments = [
        (name, one["face_to_avatar_mm"])
        for name, one in metrics.get("moments", {}).items()
        if "face_to_avatar_mm" in one
    ]
    for name, face in moments[:_MOMENTS]:
        pairs.append((f"face to avatar, {name}", f"{face['median']:.2f} mm (95 %: {face['p95']:.2f})"))
    shares = {name: r["hidden"] / r["vertices"] for name, r in metrics.get("regions", {}).items() if r.get("hidden")}
    many = [f"{name.replace('_', ' ')} {share:.0%}" for name, share in shares.items() if share >= _MANY_HIDDEN]
    if many:
        pairs.append(("hidden from all views, not measured", ", ".join(many)))
    if "flipped_triangles" in metrics:
        pairs.append(("flipped triangles on the face", str(metrics["flipped_triangles"])))
    if "not_at_rest" in metrics:
        pairs.append(("not at rest", ", ".join(metrics["not_at_rest"]) or "nothing"))
    if "mm_per_unit" in metrics:
        source = str(metrics.get("scale_source"))
        if "mm_per_unit_by_face" in metrics:
            source += f"; by the face alone {metrics['mm_per_unit_by_face']:.4g} mm"
        pairs.append(("scale", f"1 unit of the avatar = {metrics['mm_per_unit']:.4g} mm ({source})"))
    if sources := metrics.get("landmarks", {}).get("sources"):
        named = [f"{name} ({version})" if version else name for name, version in sources.items()]
        pairs.append(("landmarks of", ", ".join(named)))
    if "head_model" in metrics:
        pairs.append(("head model", str(metrics["head_model"].get("name"))))
    return pairs


def _over_time_pairs(found: dict[str, Any]) -> list[tuple[str, str]]:
    if not found:
        return []
    names, pairs = found["timestep_id"], []
    known = [(value, name) for value, name in zip(found["landmark_px"], names, strict=True) if value is not None]
    if known:
        value, name = max(known)
        pairs.append(("worst timestep by its landmarks", f"{value:.2f} px ({name})"))
    faces = [name not in found["no_face"] for name in names]
    psnr = sorted(value for value, face in zip(found["psnr_db"], faces, strict=True) if face and value is not None)
    if psnr:
        pairs.append(("PSNR by timestep, median (worst)", f"{psnr[len(psnr) // 2]:.1f} dB ({psnr[0]:.1f} dB)"))
    trembles = found["jitter_rms"]
    if trembles["vertices_mm"] is not None:
        turns = f"head {trembles['rotation_deg']:.2f}, jaw {trembles['jaw_deg']:.2f} degrees"
        pairs.append(("jitter (RMS second difference)", f"face {trembles['vertices_mm']:.2f} mm, {turns}"))
    if (face := found.get("swimming", {}).get("regions", {}).get("face")) is not None:
        text = f"{face['detail_std_median']:.1f} of 255 (with the light {face['std_median']:.1f})"
        pairs.append(("swimming of the face's texture", text))
    if found["no_face"]:
        pairs.append(("timesteps without a face", f"{len(found['no_face'])} of {len(names)}"))
    for key, title in (("views_held_out", "views held out"), ("views_fitted", "views fitted")):
        if (part := found.get("heldout", {}).get(key)) is not None:
            said = [f"landmarks {part['landmark_px']['median']:.2f} px"] if part["landmark_px"] else []
            said += [f"PSNR {part['psnr_db']:.1f} dB"] if part["psnr_db"] is not None else []
            said += [f"IoU {part['iou']:.3f}"] if part["iou"] is not None else []
            pairs.append((title, ", ".join(said) or "-"))
    drawn = found.get("drawn")
    if drawn and drawn["views"] < drawn["of_views"]:
        pairs.append(("pictures that were drawn", f"{drawn['views']} of {drawn['of_views']}"))
    return pairs


def _cell(values: dict[str, float] | None, stat: str) -> str:
    return "-" if not values or values.get(stat) is None else f"{values[stat]:.2f}"
