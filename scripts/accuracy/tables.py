"""The tables and pictures of docs/accuracy.md, from results."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from flame_fitting.files import atomic_write

from .cases import all_cases
from .methods import ABLATED, MAIN, all_methods
from .peer import NAME as PEER

DOC = Path(__file__).resolve().parents[2] / "docs" / "accuracy.md"
PICTURE_FOLDER = "accuracy"
Row = dict[str, Any]


@dataclass
class Results:
    """Rows by case and method."""

    rows: dict[tuple[str, str], Row]

    def get(self, case: str, method: str, key: str) -> float | None:
        """One number; None where it is missing or the fit failed."""
        row = self.rows.get((case, method), {})
        value = None if "error" in row or row.get("broken") else row.get(key)
        return None if value is None else float(value)

    def cases(self) -> list[str]:
        """Names in the bench's order."""
        present = {case for case, _ in self.rows}
        return [case.name for case in all_cases() if case.name in present]

    def kind(self, case: str) -> str:
        """The row's heading."""
        return next(one.kind for one in all_cases() if one.name == case)


def merge(files: list[Path], doc: bool, pictures: list[Path]) -> int:
    """Prints the tables, and puts them into the document."""
    from .bench import read_rows

    results = Results({(row["case"], row["method"]): row for row in read_rows(files)})
    parts = {
        "checks": checks(results),
        "main": main_table(results),
        "regions": region_table(results),
        "offsets": offset_table(results),
        "ablation": ablation_table(results),
    }
    if pictures:
        parts["pictures"] = choose_pictures(results, pictures)
    for name, text in parts.items():
        print(f"## {name}\n\n{text}\n")
    if doc:
        for name, text in parts.items():
            if text:
                write_between(DOC, name, text)
    return 0


def write_between(path: Path, name: str, text: str) -> None:
    """Puts a text between the markers `name` of a document."""
    content = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = content.split(begin, 1)
    after = rest.split(end, 1)[1]
    with atomic_write(path) as temporary:
        temporary.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main_table(results: Results) -> str:
    """Cases by main methods: face surface, vertex to vertex, PSNR, seconds."""
    methods = [method.name for method in MAIN if not method.cases] + [PEER]
    lines = _head(["case", "", *methods])
    for case in results.cases():
        cells = [case, results.kind(case)]
        cells += [_main_cell(results, case, method) for method in methods]
        lines.append(_line(cells))
    cells = ["**median**", ""]
    for method in methods:
        keys = ("face_surface_mm", "face_vertex_mm", "psnr_db", "seconds")
        columns = [[v for c in results.cases() if (v := results.get(c, method, key)) is not None] for key in keys]
        cells.append(_joined([median(column) if column else None for column in columns], (3, 2, 1, 1)))
    return "\n".join([*lines, _line(cells)])


def _main_cell(results: Results, case: str, method: str) -> str:
    if "error" in results.rows.get((case, method), {}):
        return "failed"
    psnr = results.get(case, method, "psnr_db")
    if case.startswith("clay"):
        psnr = None
    values = [results.get(case, method, key) for key in ("face_surface_mm", "face_vertex_mm", "", "seconds")]
    values[2] = psnr
    return _joined(values, (3, 2, 1, 1))


def region_table(results: Results) -> str:
    """Surface medians by region, landmarks and silhouette."""
    columns = (
        ("ears", "ears_surface_mm", 2),
        ("neck", "neck_surface_mm", 2),
        ("scalp", "scalp_surface_mm", 2),
        ("lips", "lips_surface_mm", 2),
        ("eyes", "eyes_surface_mm", 2),
        ("face p95", "face_surface_p95_mm", 2),
        ("landmarks", "landmark_mm", 2),
        ("silhouette IoU", "silhouette_iou", 4),
        ("PSNR above the neck", "psnr_above_neck_db", 1),
    )
    lines = _head(["case", "method", *(title for title, _, _ in columns)])
    shown = ("vhap", "static no geometry", "static", PEER)
    for case in results.cases():
        if case.startswith(("bare", "standin", "hair", "glasses", "body")):
            for method in shown:
                if (case, method) in results.rows:
                    values = [_number(results.get(case, method, key), digits) for _, key, digits in columns]
                    lines.append(_line([case, method, *values]))
    return "\n".join(lines)


def offset_table(results: Results) -> str:
    """With and without static offsets."""
    bases = ("vhap", "static no geometry", "static")
    lines = _head(["case", *(name for base in bases for name in (base, f"{base}, no offsets"))])
    for case in results.cases():
        pairs = [(base, f"{base} no offsets") for base in bases]
        if not any((case, bare) in results.rows for _, bare in pairs):
            continue
        cells = [_main_cell(results, case, name) for pair in pairs for name in pair]
        lines.append(_line([case, *cells]))
    return "\n".join(lines)


def ablation_table(results: Results) -> str:
    """What happens to the cases' medians when one thing is changed, in percent of the method on the same cases."""
    lines: list[str] = []
    keys = (
        ("face", "face_surface_mm", 3),
        ("vertex", "face_vertex_mm", 2),
        ("ears", "ears_surface_mm", 2),
        ("neck", "neck_surface_mm", 2),
        ("scalp", "scalp_surface_mm", 2),
        ("lips", "lips_surface_mm", 2),
        ("eyes", "eyes_surface_mm", 2),
        ("PSNR", "psnr_db", 1),
        ("seconds", "seconds", 1),
    )
    for base in ABLATED:
        ablations = [method for method in all_methods() if method.base == base]
        present = [m for m in ablations if any(name == m.name for _, name in results.rows)]
        if not present:
            continue
        cases = sorted({case for case, name in results.rows for m in present if name == m.name})
        lines += ["", f"`{base}`, medians over {', '.join(cases)}:", ""]
        lines += _head(["", "cases", *(title for title, _, _ in keys)])
        whole = {key: _median(results, cases, base, key) for _, key, _ in keys}
        lines.append(_line([f"**{base}**", str(len(cases)), *(_number(whole[key], n) for _, key, n in keys)]))
        for method in present:
            own = [case for case in cases if (case, method.name) in results.rows]
            cells = [method.name.removeprefix(f"{base}: "), str(len(own))]
            for _, key, digits in keys:
                value, before = (_median(results, own, name, key) for name in (method.name, base))
                cells.append(_number(value, digits) + _change(value, before, key))
            lines.append(_line(cells))
    return "\n".join(lines).strip()


def _median(results: Results, cases: list[str], method: str, key: str) -> float | None:
    values = [value for case in cases if (value := results.get(case, method, key)) is not None]
    return median(values) if values else None


def _change(value: float | None, whole: float | None, key: str) -> str:
    if value is None or not whole:
        return ""
    if key == "psnr_db":
        return f" ({value - whole:+.1f})"
    return f" ({100 * (value / whole - 1):+.0f} %)"


def checks(results: Results) -> str:
    """What must hold, with what was measured."""
    lines: list[str] = []

    def report(text: str, bad: list[str], count: int, detail: str = "") -> None:
        if count == 0:
            lines.append(f"- **not measured**: {text}")
            return
        state = "**fails**" if bad else "**holds**"
        more = f" ({count} cases{'; ' + detail if detail else ''})"
        lines.append(f"- {state}: {text}{more}" + (": " + "; ".join(bad) if bad else ""))

    cases = results.cases()
    for method in ("static", "static no geometry"):
        for key, what in (("face_surface_mm", "face median"), ("seconds", "seconds")):
            pairs = _pairs(results, cases, method, "vhap", key)
            bad = [f"{case} {one:.3f} against {two:.3f}" for case, one, two in pairs if one >= two]
            ratio = f"median ratio {median(one / two for _, one, two in pairs):.2f}" if pairs else ""
            report(f"`{method}` beats `vhap` in {what} on every case", bad, len(pairs), ratio)
        textured = [case for case in cases if not case.startswith("clay")]
        pairs = _pairs(results, textured, method, "vhap", "face_vertex_mm")
        if pairs:
            ours, theirs = median(pair[1] for pair in pairs), median(pair[2] for pair in pairs)
            bad = [] if ours < theirs else [f"{ours:.2f} mm against {theirs:.2f} mm"]
            text = f"`{method}` beats `vhap` in the median of vertex-to-vertex errors over textured cases"
            report(text, bad, len(pairs), f"{ours:.2f} mm against {theirs:.2f} mm")
        pairs = _pairs(results, cases, method, "vhap", "face_vertex_mm")
        bad = [f"{case} {one:.2f} against {two:.2f}" for case, one, two in pairs if one > 1.1 * two]
        report(f"`{method}` is nowhere more than 10 % worse than `vhap` vertex to vertex", bad, len(pairs))

    bare = [case for case in cases if case.startswith("bare")]
    limits = (("static no geometry", 0.36), ("static", 0.15))
    for method, limit in limits:
        found = {case: v for case in bare if (v := results.get(case, method, "face_surface_mm")) is not None}
        bad = [f"{case} {value:.3f}" for case, value in found.items() if value > limit]
        worst = f"worst {max(found.values()):.3f} mm" if found else ""
        report(f"`{method}` reaches {limit} mm on the face of bare cases", bad, len(found), worst)
    psnr = {case: v for case in bare if (v := results.get(case, "static no geometry", "psnr_db")) is not None}
    bad = [f"{case} {value:.1f}" for case, value in psnr.items() if value < 30]
    worst = f"worst {min(psnr.values()):.1f} dB" if psnr else ""
    report("`static no geometry` reaches 30 dB on held-out views of bare cases", bad, len(psnr), worst)

    like = {case.name: case.like for case in all_cases()}
    covered = [case for case in cases if case.startswith(("hair", "glasses", "body"))]
    for method in ("static", "static no geometry"):
        bad, count, ratios = [], 0, []
        for case in covered:
            found_here = results.get(case, method, "face_surface_mm")
            when_bare = results.get(like[case], method, "face_surface_mm")
            if found_here is not None and when_bare is not None:
                count += 1
                ratios.append(found_here / when_bare)
                if found_here > 1.2 * when_bare:
                    bad.append(f"{case} {found_here:.3f} against {when_bare:.3f}")
        worst = f"worst ratio {max(ratios):.2f}" if ratios else ""
        report(f"`{method}` with hair, glasses or a body stays within 20 % of the bare case", bad, count, worst)

    heads = [case for case in cases if case.startswith(("bare", "standin"))]
    for region in ("ears", "neck", "scalp"):
        pairs = _pairs(results, heads, "static no geometry", "vhap", f"{region}_surface_mm")
        bad = [f"{case} {one:.2f} against {two:.2f}" for case, one, two in pairs if one >= two]
        report(f"`static no geometry` beats `vhap` on the {region} of bare cases", bad, len(pairs))
    pairs = _pairs(results, heads, "static no geometry", "vhap", "silhouette_iou")
    bad = [f"{case} {one:.4f} against {two:.4f}" for case, one, two in pairs if one <= two]
    report("`static no geometry` beats `vhap` in silhouette IoU on bare cases", bad, len(pairs))
    pairs = _pairs(results, cases, "static", PEER, "face_vertex_mm")
    bad = [f"{case} {one:.2f} against {two:.2f}" for case, one, two in pairs if one >= two]
    report(f"`static` beats {PEER} vertex to vertex", bad, len(pairs))
    failed = [f"{case} {method}" for (case, method), row in results.rows.items() if "error" in row]
    if failed:
        lines.append(f"- **fits that failed**: {'; '.join(failed)}")
    return "\n".join(lines)


def _pairs(results: Results, cases: list[str], one: str, two: str, key: str) -> list[tuple[str, float, float]]:
    out = []
    for case in cases:
        a, b = results.get(case, one, key), results.get(case, two, key)
        if a is not None and b is not None:
            out.append((case, a, b))
    return out


def choose_pictures(results: Results, folders: list[Path]) -> str:
    """Copies the picture of the worst case of each kind into the document's folder; the Markdown that shows them."""
    target = DOC.parent / PICTURE_FOLDER
    target.mkdir(exist_ok=True)
    for old in target.glob("*.jpg"):
        old.unlink()
    lines: list[str] = []
    kinds = list(dict.fromkeys(case.kind for case in all_cases()))
    method = "static no geometry"
    total = 0
    for kind in kinds:
        found = []
        for case in all_cases():
            value = results.get(case.name, method, "face_surface_mm")
            name = f"{case.name}.{method.replace(' ', '_')}.jpg"
            path = next((folder / name for folder in folders if (folder / name).is_file()), None)
            if case.kind == kind and value is not None and path is not None:
                found.append((value, case.name, path))
        if not found:
            continue
        value, case_name, path = max(found)
        shutil.copyfile(path, target / f"{case_name}.jpg")
        total += path.stat().st_size
        other = results.get(case_name, "static", "face_surface_mm")
        text = f"**{kind}** ({case_name}): `{method}`, face {value:.3f} mm"
        text += f"; `static` {other:.3f} mm" if other is not None else ""
        lines += [text, "", f"![{kind}]({PICTURE_FOLDER}/{case_name}.jpg)", ""]
    print(f"pictures: {total / 1e6:.2f} MB")
    return "\n".join(lines).strip()


def _joined(values: list[float | None], digits: tuple[int, ...]) -> str:
    if all(value is None for value in values):
        return ""
    return " / ".join(_number(value, digit) for value, digit in zip(values, digits, strict=True))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _head(cells: list[str]) -> list[str]:
    return [_line(cells), "|" + " --- |" * len(cells)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
