"""Identities x expressions: truths show what they say, and each number tells the fault that it is there for."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flame_fitting.fit.result import FitResult, save_parameters
from flame_fitting.head.apertures import find_apertures
from scripts.accuracy import cases, expressions, eyes
from scripts.accuracy.expression_bench import read
from scripts.accuracy.expression_measure import aligned_to_surface, measure_expression, skin_faces, to_polyline
from scripts.accuracy.expression_table import table
from scripts.accuracy.expressions import EXPRESSIONS, Expression, ExpressionCase, Face, Person, face_of, person
from scripts.accuracy.lips import crossing_triangles, lip_depths

SEED = 7102  # even: shows on the right
BY_NAME = {one.name: one for one in EXPRESSIONS}


@pytest.fixture(scope="module")
def who() -> Person:
    person.cache_clear()
    return person(SEED, 64)


def gaps(who: Person, vertices: np.ndarray) -> np.ndarray:
    """mm."""
    return 1000 * find_apertures(who.head).gaps(torch.as_tensor(vertices)[None], who.head.faces)[0].numpy()


def test_persons_differ_and_are_drawn_again_alike(who: Person) -> None:
    person.cache_clear()
    assert np.array_equal(person(SEED, 64).neutral, who.neutral)
    assert np.abs(person(7103, 64).shape - who.shape).max() > 1


def test_offsets_are_in_the_bases_span_too(who: Person) -> None:
    basis = torch.cat([who.head.shapedirs, who.head.exprdirs], dim=2).numpy().reshape(who.offsets.size, -1)
    target = who.offsets.reshape(-1)
    left = target - basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
    assert np.linalg.norm(left) < 0.9 * np.linalg.norm(target), "orthogonal ones would leave everything"
    face = who.head.regions["face"].numpy()
    assert np.sqrt((who.offsets[face] ** 2).sum(1).mean()) == pytest.approx(0.002, rel=0.1)


def test_shut_lids_are_shut(who: Person) -> None:
    head = who.head
    rest, blink, one = (face_of(who, BY_NAME[name]).vertices for name in ("rest", "blink", "one_lid"))
    assert gaps(who, rest)[:10].min() > 3.0
    assert np.abs(gaps(who, blink)[:10]).max() < 0.4
    # GAP_NAMES: the right eye first, and this person shows sides on the right
    assert np.abs(gaps(who, one)[:5]).max() < 0.4 and gaps(who, one)[5:10].min() > 3.0
    for side in eyes.SIDES:
        assert eyes.visible_area(head, rest, side) > 60
        assert eyes.visible_area(head, blink, side) < 0.01 * eyes.visible_area(head, rest, side)
    assert eyes.lid_depths(head, blink).max() < 1e-5


@pytest.mark.parametrize("name", [one.name for one in EXPRESSIONS if one.name != "rest"])
def test_an_expression_is_clearly_seen_and_not_only_the_components(who: Person, name: str) -> None:
    face, skin = face_of(who, BY_NAME[name]), who.head.regions["face"].numpy()
    change = 1000 * (face.vertices - face_of(who, BY_NAME["rest"]).vertices)
    if name == "jaw_open":
        assert gaps(who, face.vertices)[10:].min() > 8.0 and np.abs(face.moved).max() < 1e-9
        return
    size = np.linalg.norm(1000 * face.moved[skin], axis=1)
    assert size.max() > 4.0 and np.abs(change[skin]).max() > 4.0
    basis = who.head.exprdirs.numpy().reshape(face.moved.size, -1)
    left = face.moved.reshape(-1) - basis @ np.linalg.lstsq(basis, face.moved.reshape(-1), rcond=None)[0]
    assert np.linalg.norm(left) > 0.02 * np.linalg.norm(face.moved)


def written(folder: Path, who: Person, expression: Expression, monkeypatch: pytest.MonkeyPatch) -> Face:
    """The truth of a case, without pictures."""

    def no_pictures(case: Any, subject: Any, folder: Path, places: Any) -> None:
        embedding = cases._embedding(subject.head, "textured", None)
        cases._write_avatar(folder / "avatar", case, subject, cases.make_avatar(case, subject), embedding)

    monkeypatch.setattr(expressions, "build_subject", no_pictures)
    monkeypatch.setattr(expressions, "person", lambda seed: who)
    expressions.build(ExpressionCase(SEED, expression), folder, cases.Places(folder))
    return face_of(who, expression)


def fit_of(folder: Path, who: Person, face: Face, offsets: np.ndarray, expr: np.ndarray, **changed: np.ndarray) -> Path:
    parameters = {
        "rotation": np.zeros((1, 3)),
        "translation": np.zeros((1, 3)),
        "shape": who.shape,
        "expr": expr,
        "static_offset": offsets[None],
        **face.poses,
        **changed,
    }
    head_from_world = np.linalg.inv(who.world_from_head)
    fit = FitResult(
        who.head.name, who.head.file_hash, parameters, head_from_world, (8, 8), ["0"], head_identity=who.head.identity
    )
    folder.mkdir(parents=True)
    save_parameters(folder / "tracked_flame_params.npz", fit)
    return folder


def test_a_perfect_fit_is_perfect(who: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = written(tmp_path / "case", who, BY_NAME["jaw_open"], monkeypatch)
    row = measure_expression(tmp_path / "case", fit_of(tmp_path / "fit", who, face, who.offsets, face.expr))
    for key in ("neutral_face_p95_mm", "kept_lips_p95_mm", "neutral_lids_p95_mm", "field_p95_mm", "gap_open_mm"):
        assert row[key] < 0.005, key
    for key in ("neutral_face_vertex_mm", "curves_p95_mm", "gap_lips_mm", "neutral_gap_lips_mm", "scale_percent"):
        assert abs(row[key]) < 0.005, key
    assert row["jaw_deg"] < 0.01 and row["gaze_deg"] < 0.02
    assert row["gap_shut_mm"] is None and "visible_shut_percent" not in row
    assert row["face_to_avatar_median_mm"] < 0.15, "other triangles of the same surface"
    assert row["lip_crossings"] == row["true_lip_crossings"]


def test_expression_in_offsets_is_found_in_the_neutral_head(
    who: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = written(tmp_path / "case", who, BY_NAME["blink"], monkeypatch)
    nothing = np.zeros((1, who.head.n_expr))
    row = measure_expression(tmp_path / "case", fit_of(tmp_path / "fit", who, face, who.offsets + face.moved, nothing))
    assert row["lids_to_avatar_p95_mm"] < 0.1 and row["gap_shut_mm"] < 0.05, "posed it is right"
    assert row["visible_shut_percent"] < 1.0
    assert row["neutral_gap_open_mm"] > 3.0, "but the neutral head keeps its eyes shut"
    assert row["neutral_lids_p95_mm"] > 1.0
    true = row["field_true_rms_mm"]
    assert true > 0.5 and row["field_rms_mm"] == pytest.approx(true, rel=0.01)


def test_a_fit_that_shows_nothing(who: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = written(tmp_path / "case", who, BY_NAME["one_lid"], monkeypatch)
    nothing, turned = np.zeros((1, who.head.n_expr)), face.poses["eyes_pose"] + [0.0, 0.1, 0.0, 0.0, 0.1, 0.0]
    fit = fit_of(tmp_path / "fit", who, face, who.offsets, nothing, jaw_pose=np.array([[0.1, 0, 0]]), eyes_pose=turned)
    row = measure_expression(tmp_path / "case", fit)
    assert row["neutral_face_p95_mm"] < 0.005 and row["gap_shut_mm"] > 3.0
    assert row["visible_shut_percent"] == pytest.approx(100, abs=3)
    assert row["jaw_deg"] == pytest.approx(np.degrees(0.1), abs=0.01)
    assert row["gaze_deg"] == pytest.approx(np.degrees(0.1), rel=0.05)


def test_lips_and_lids_that_pass_through(who: Person) -> None:
    head, rest = who.head, who.head.v_template.numpy().astype(np.float64)
    assert crossing_triangles(head, rest, "lips") == 0
    pressed = rest.copy()
    lower = head.region_mask("lips", "lips_tight").numpy() & (head.weights[:, 2].numpy() > 0.5)
    pressed[lower, 1] += 0.001
    assert 0.0004 < np.quantile(lip_depths(head, pressed), 0.95) < 0.0011
    assert crossing_triangles(head, pressed, "lips") > 10
    sunk = rest.copy()
    sunk[head.regions["left_eyelid"].numpy(), 2] -= 0.002
    assert 0.001 < eyes.lid_depths(head, sunk).max() <= 0.002 and not eyes.lid_depths(head, rest).max() > 1e-5
    out = eyes.lids_outside(head, sunk, 0.0002)
    assert eyes.lid_depths(head, out).max() == 0.0


def test_alignment_to_a_surface(who: Person) -> None:
    rest = who.neutral
    moved = rest @ np.array([[np.cos(0.02), 0, np.sin(0.02)], [0, 1, 0], [-np.sin(0.02), 0, np.cos(0.02)]]).T + 0.001
    back = aligned_to_surface(who.head, moved, rest, skin_faces(who.head))
    assert np.abs(back - rest).max() < 0.0003


def test_distance_to_a_polyline() -> None:
    line = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0]])
    points = np.array([[0.5, 0.2, 0], [-1, 0.3, 0], [1.5, 5, 0], [0.9, 0.5, 0]])
    assert np.allclose(to_polyline(points, line), [0.2, 0.3, 0.5, 0.1])


def test_the_table(tmp_path: Path) -> None:
    def row(expression: str, face: float, **more: object) -> dict[str, Any]:
        about = {"group": "known", "case": expression, "person": "1", "expression": expression}
        return about | {"neutral_face_mm": face} | more

    among = {"group": "between", "of": "known", "case": "a b"}
    rows = [
        row("rest", 0.2, jaw_deg=1.0),
        row("blink", 0.4, jaw_deg=None),
        {"group": "known", "case": "x", "person": "1", "expression": "pout", "error": "no face"},
        among | {"kind": "within", "face_median_mm": 0.5},
        among | {"kind": "between", "face_median_mm": 2.0},
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    text = table(read(tmp_path / "results.jsonl"))
    assert "| neutral face | 0.3 | 0.20 | **0.40** |  | 0.30 |" in text
    assert "| jaw, ° | 1.5 | 1.0 |  |  | 1.0 |" in text
    assert "**failed**: x: no face" in text
    assert "| ratio (bar 3) |  | 4.0 |" in text


def test_names_of_sides() -> None:
    assert expressions._sided("mouthSmileLeft", True) == "mouthSmileRight"
    assert expressions._sided("mouthSmileLeft", False) == "mouthSmileLeft"
    assert expressions._sided("left", True) == "right" and expressions._sided("mouthPucker", True) == "mouthPucker"


def test_cases_have_names_of_their_own() -> None:
    found = expressions.expression_cases(5)
    assert len({one.name for one in found}) == len(found) == 5 * 8
    assert [one.expression.name for one in expressions.expression_cases(1, ["blink", "rest"])] == ["rest", "blink"]
    assert dataclasses.replace(found[0], synthetic=True).case.landmarks == "synthetic"
