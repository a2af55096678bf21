"""The frozen figures: what counts as a figure, and what as a difference."""

from scripts.accuracy.baseline import differences, numbers, page

METRICS = {
    "regions": {"face": {"to_avatar_mm": {"median": 0.024, "p95": 0.11}}},
    "stages": {"geo_init_all": {"regions": {"face": {"to_avatar_mm": {"median": 0.49}}}}},
    "psnr_heldout_db": 33.0,
    "flipped_triangles": 0,
    "head_model": {"name": "open"},
    "head_from_world": [[1.0, 0.0]],
    "seconds": {"fit": 30.0},
    "warnings": ["one", "two"],
}


def test_figures_are_numbers_and_the_count_of_warnings_but_no_seconds() -> None:
    assert dict(numbers(METRICS)) == {
        "regions.face.to_avatar_mm.median": 0.024,
        "regions.face.to_avatar_mm.p95": 0.11,
        "stages.geo_init_all.regions.face.to_avatar_mm.median": 0.49,
        "psnr_heldout_db": 33.0,
        "flipped_triangles": 0.0,
        "warnings": 2.0,
    }


def test_medians_of_the_face_may_differ_by_millimetres_and_others_by_a_share() -> None:
    old = dict(numbers(METRICS))
    assert differences(old, old) == []
    within = old | {"regions.face.to_avatar_mm.median": 0.0288, "psnr_heldout_db": 33.1}
    assert differences(old, within) == []
    moved = {
        "regions.face.to_avatar_mm.median": 0.0295,
        "psnr_heldout_db": 32.8,
        "flipped_triangles": 1.0,
        "regions.face.to_avatar_mm.p95": 0.112,
    }
    assert [line.split(":")[0] for line in differences(old, old | moved)] == sorted(moved)


def test_a_figure_that_appears_or_goes_or_stops_being_a_number_is_a_difference() -> None:
    old = {"a": 1.0, "b": 2.0, "c": 3.0}
    assert differences(old, {"b": 2.0, "c": float("nan"), "d": 1.0}) == [
        "a: gone",
        "c: 3 -> nan (allowed: 0.015)",
        "d: new",
    ]


def test_page_shows_every_label_and_every_figure_of_the_last() -> None:
    figures = dict(numbers(METRICS))
    frozen = {
        "before": {"version": "0.1", "machine": "m", "metrics": {"demo": figures}},
        "after": {"version": "0.2", "machine": "m", "metrics": {"demo": figures | {"psnr_heldout_db": 35.0}}},
    }
    text = page(frozen)
    assert "| PSNR held out, dB | before | 33 |" in text and "| PSNR held out, dB | after | 35 |" in text
    assert {key for key in figures if f"| {key} | " not in text} == {
        key for key in figures if key.startswith("stages.")
    }
