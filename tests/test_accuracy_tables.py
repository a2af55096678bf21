"""Methods and tables of the accuracy bench."""

import json
from pathlib import Path

import pytest

from flame_fitting.fit.check import check
from scripts.accuracy import tables
from scripts.accuracy.bench import read_rows
from scripts.accuracy.cases import all_cases
from scripts.accuracy.methods import ABLATED, MAIN, all_methods, effective, shortened
from scripts.accuracy.tables import Results, checks, main_table


def test_methods_are_valid_and_ablations_change_something(tmp_path: Path) -> None:
    methods = all_methods()
    by_name = {method.name: method for method in methods}
    assert len(by_name) == len(methods) > len(MAIN) + 10
    for method in methods:
        config = method.config()
        config.capture = tmp_path
        check(config)
        if method.base:
            base = by_name[method.base]
            assert effective(config, base) != effective(base.config(), base), method.name
    assert {method.base for method in methods if method.base} == set(ABLATED)


def test_landmarks_alone_move_nothing_else() -> None:
    from flame_fitting.fit.schedule import effective_pipeline

    config = next(method for method in MAIN if method.name == "landmarks").config()
    stages = effective_pipeline(config, has_geometry=True)
    assert [name for name, stage in stages if stage.solver not in ("closed_form", "bake")] == ["lmk_init_all"]


def test_a_shortened_method_is_short() -> None:
    for method in MAIN:
        for name, stage in shortened(method.config(), 12).pipeline.items():
            assert stage.num_steps <= 12 and stage.num_epochs <= 2, name


def made_rows(static: float, vhap: float, hair: float) -> list[dict]:
    common = {"ears_surface_mm": 1.0, "neck_surface_mm": 1.0, "scalp_surface_mm": 1.0, "silhouette_iou": 0.99}
    rows = []
    for case, method, face, vertex, seconds in (
        ("bare_0", "static", static, 1.0, 3.0),
        ("bare_0", "vhap", vhap, 2.0, 10.0),
        ("bare_0", "static no geometry", 0.3, 1.5, 4.0),
        ("hair_0", "static", hair, 1.0, 3.0),
        ("hair_0", "vhap", vhap, 0.5, 10.0),
    ):
        measured = {"face_surface_mm": face, "face_vertex_mm": vertex, "seconds": seconds, "psnr_db": 31.0}
        rows.append({"case": case, "method": method} | common | measured)
    return rows


def results_of(rows: list[dict]) -> Results:
    return Results({(row["case"], row["method"]): row for row in rows})


def line_with(text: str, part: str) -> str:
    return next(line for line in text.splitlines() if part in line)


def test_checks_say_what_holds_and_what_fails() -> None:
    text = checks(results_of(made_rows(static=0.1, vhap=0.5, hair=0.2)))
    assert line_with(text, "`static` beats `vhap` in face").startswith("- **holds**")
    assert line_with(text, "`static` beats `vhap` in seconds").startswith("- **holds**")
    worse = line_with(text, "`static` is nowhere more than 10 %")
    assert worse.startswith("- **fails**") and "hair_0 1.00 against 0.50" in worse
    assert line_with(text, "`static` reaches 0.15").startswith("- **holds**")
    assert line_with(text, "`static` with hair").startswith("- **fails**")
    assert line_with(text, "30 dB").startswith("- **holds**")
    # equal is not better
    assert line_with(text, "on the ears").startswith("- **fails**")
    assert line_with(text, "nricp").startswith("- **not measured**")
    text = checks(results_of(made_rows(static=0.6, vhap=0.5, hair=0.6)))
    assert line_with(text, "`static` beats `vhap` in face").startswith("- **fails**")
    assert line_with(text, "`static` reaches 0.15").startswith("- **fails**")


def test_failed_fits_are_named_and_not_counted() -> None:
    rows = [*made_rows(0.1, 0.5, 0.1), {"case": "bare_1", "method": "static", "error": "ValueError: x"}]
    assert "bare_1 static" in line_with(checks(results_of(rows)), "fits that failed")
    assert "failed" in line_with(main_table(results_of(rows)), "bare_1")


def test_later_rows_replace_earlier_ones(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    rows = made_rows(0.1, 0.5, 0.1)
    first.write_text("".join(json.dumps(row) + "\n" for row in rows))
    second.write_text(json.dumps(rows[0] | {"face_surface_mm": 0.07}) + "\n")
    merged = results_of(read_rows([first, second, tmp_path / "missing.jsonl"]))
    assert len(merged.rows) == len(rows)
    assert merged.get("bare_0", "static", "face_surface_mm") == 0.07


def test_document_gets_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "accuracy.md"
    document.write_text(tables.DOC.read_text())
    monkeypatch.setattr(tables, "DOC", document)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in made_rows(0.1, 0.5, 0.1)))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "bare_0.static_no_geometry.jpg").write_bytes(b"picture")
    for _ in range(2):
        assert tables.merge([rows], True, [pictures]) == 0
    text = document.read_text()
    assert text.count("| bare_0 | bare |") == 1
    assert text.count("accuracy/bare_0.jpg") == 1
    assert (tmp_path / "accuracy" / "bare_0.jpg").read_bytes() == b"picture"


def test_every_case_has_its_place_in_the_document() -> None:
    text = tables.DOC.read_text()
    for kind in ("hair", "glasses", "body", "clay", "vertex colours", "detected landmarks"):
        assert f"| {kind} |" in text
        assert any(case.kind == kind for case in all_cases())
