"""Metrics on heads whose errors are known."""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import project
from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.evaluate import REPORT_FOLDER, EvaluateConfig, evaluate, evaluate_in_place, plan
from flame_fitting.fit.parameters import FitParameters, placement_matrix
from flame_fitting.fit.result import FitResult, StageRecord
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D, write_landmarks
from flame_fitting.manifest import compare, read_manifest
from flame_fitting.maths.normals import vertex_normals
from flame_fitting.report.drawing import head_avatar
from flame_fitting.report.landmark_errors import landmark_metrics
from flame_fitting.report.metrics import evaluate_fit, flipped_triangles, on_open_edge, region_metrics
from flame_fitting.report.pictures import picture_metrics, pooled_psnr
from flame_fitting.report.statistics import weighted_stats
from flame_fitting.report.surfaces import visible_surface
from flame_fitting.report.tables import metrics_table
from flame_fitting.report.truth import Truth, load_truth, truth_metrics
from flame_fitting.report.usual_range import Thresholds, out_of_range
from tests.synthetic import known_fit, render_case, save_case, similarity
from tests.toy import toy_head

Case = tuple[FitResult, Capture, HeadModel, Path]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    head = toy_head()
    fit = known_fit(head, similarity())
    fit.parameters["jaw_pose"][:] = 0
    capture = render_case(folder, head, fit, n_fit=12, n_heldout=2, size=192)
    fit.folder = save_case(folder / "fit", fit, capture)
    return fit, capture, head, folder


def displaced(fit: FitResult, head: HeadModel, metres: float) -> FitResult:
    """The fit with every vertex moved outward along its normal."""
    normals = vertex_normals(fit.vertices_head(head)[0], head.faces.numpy())
    return dataclasses.replace(fit, parameters=fit.parameters | {"static_offset": metres * normals[None]})


def test_a_perfect_fit_measures_nothing(case: Case) -> None:
    fit, capture, head, _ = case
    metrics = evaluate_fit(fit, capture, head)
    face = metrics["regions"]["face"]
    assert face["to_avatar_mm"]["p95"] < 0.2 and face["from_avatar_mm"]["p95"] < 0.05
    assert metrics["silhouette_iou"] > 0.999 and metrics["psnr_heldout_db"] > 45
    assert metrics["flipped_triangles"] == 0
    assert face["hidden"] == 0 and face["vertices"] == len(head.regions["face"])


@pytest.mark.parametrize("against_mesh", [False, True])
def test_what_few_views_leave_unseen_is_not_measured(case: Case, tmp_path: Path, against_mesh: bool) -> None:
    fit, _, head, _ = case
    capture = render_case(tmp_path, head, fit, n_fit=12, n_heldout=1, size=512)  # small pictures end at 70 degrees
    # two views from the front say where the surface is; landmark views see the rest, but measure nothing
    front = [dataclasses.replace(view, role="fit" if view.camera in (0, 1) else "landmark") for view in capture.views]
    few = dataclasses.replace(capture, views=front)
    avatar = head_avatar(head, fit.vertices_world(head)[0]) if against_mesh else None
    regions = evaluate_fit(fit, few, head, avatar)["regions"]
    assert regions["scalp"]["hidden"] > 0.3 * regions["scalp"]["vertices"]
    for region in regions.values():
        if "to_avatar_mm" in region:
            assert region["to_avatar_mm"]["p95"] < 0.2  # the back of the head is 100 mm away
    # what is seen is measured however far off it is
    off = evaluate_fit(displaced(fit, head, 0.02), few, head, avatar)["regions"]["face"]["to_avatar_mm"]
    assert 10 < off["median"] < 21


@pytest.mark.parametrize("against_mesh", [False, True])
def test_one_millimetre_outward_measures_one_millimetre_both_ways(case: Case, against_mesh: bool) -> None:
    fit, capture, head, _ = case
    avatar = head_avatar(head, fit.vertices_world(head)[0]) if against_mesh else None
    seen = visible_surface(capture, fit.head_from_world, 0, avatar)
    face = region_metrics(head, displaced(fit, head, 0.001).vertices_head(head), [seen])["face"]
    for way in ("to_avatar_mm", "from_avatar_mm"):
        # pixels of 2 mm on facets of 10 mm; a real capture is finer
        assert face[way]["median"] == pytest.approx(1, abs=0.02 if against_mesh else 0.06)
        assert face[way]["mean"] == pytest.approx(1, abs=0.02 if against_mesh else 0.06)


def test_true_millimetres_can_be_given(case: Case) -> None:
    fit, capture, head, _ = case
    moved = displaced(fit, head, 0.001)
    once = evaluate_fit(moved, capture, head)["regions"]["face"]["to_avatar_mm"]["median"]
    doubled = evaluate_fit(moved, capture, head, mm_per_unit=2 * fit.mm_per_unit)
    assert doubled["regions"]["face"]["to_avatar_mm"]["median"] == pytest.approx(2 * once, rel=1e-6)


def test_truth_is_measured_vertex_to_vertex_in_its_own_millimetres(case: Case) -> None:
    fit, capture, head, _ = case
    moved = fit.vertices_world(head)[0] + np.array([0.1, 0.0, 0.0])  # 0.1 units
    values = evaluate_fit(fit, capture, head, truth=Truth(moved, mm_per_unit=30.0))["regions"]["face"]
    for key in ("median", "mean", "p95"):
        assert values["to_truth_mm"][key] == pytest.approx(3.0, rel=1e-5)
    assert values["to_truth_surface_mm"]["median"] < 3.0


def test_stages_are_measured_alike(case: Case) -> None:
    fit, capture, head, _ = case
    moved = displaced(fit, head, 0.002)
    values = {name: torch.as_tensor(value) for name, value in moved.parameters.items()}
    parameters = dataclasses.replace(FitParameters.neutral(head), **values)
    # in the reference frame the head stands elsewhere, and is smaller
    parameters.placement[:] = torch.tensor([0.1, -0.2, 0.3, 0.02, 0.01, -0.03, -0.5])
    reference_from_world = placement_matrix(parameters.placement) @ fit.head_from_world
    stage = StageRecord("rgb_init_offset", parameters, reference_from_world, 1.5)
    older = StageRecord("lmk_init_all", None, reference_from_world, 1.0)
    truth = Truth(fit.vertices_world(head)[0], fit.mm_per_unit)
    metrics = evaluate_fit(dataclasses.replace(fit, stages=[older, stage]), capture, head, truth=truth)
    record = metrics["stages"]["rgb_init_offset"]
    assert record["regions"]["face"]["to_avatar_mm"]["median"] == pytest.approx(2, abs=0.05)
    assert record["regions"]["face"]["to_truth_mm"]["median"] == pytest.approx(2, abs=1e-3)
    assert metrics["stages"]["lmk_init_all"] == {
        **{"regions": {}, "accepted": True, "seconds": 1.0},
        "smoothed_triangles": 0,
    }


def test_psnr_of_a_known_error(case: Case) -> None:
    fit, capture, head, _ = case
    assert fit.texture is not None
    brighter = dataclasses.replace(fit, texture=fit.texture + np.uint8(26))  # of at most 210
    values = picture_metrics(brighter, capture, head)
    assert values["psnr_heldout_db"] == pytest.approx(20 * np.log10(255 / 26), abs=0.1)
    assert values["silhouette_iou"] > 0.999  # type: ignore[operator]
    # a head that is not where the avatar is: its own pixels count, not the avatar's alpha
    moved = fit.head_from_world.copy()
    moved[:3, 3] += [0.02, 0.0, 0.0]
    aside = picture_metrics(dataclasses.replace(fit, head_from_world=moved), capture, head)
    assert aside["psnr_heldout_db"] < 20 and aside["silhouette_iou"] < 0.9  # type: ignore[operator]


def test_pooled_psnr() -> None:
    assert pooled_psnr([(0.01 * 50, 50), (0.01 * 150, 150)]) == pytest.approx(20)
    assert pooled_psnr([(1.0, 100), (0.0, 0)]) == pytest.approx(20)
    assert pooled_psnr([]) is None and pooled_psnr([(0.0, 10)]) == 99


def test_silhouette_counts_only_what_is_above_the_neck(case: Case) -> None:
    fit, capture, head, _ = case
    shape = head.v_template.double().numpy()
    drop = np.zeros_like(shape)
    front = head.regions["front_middle_bottom_point_boundary"].numpy()
    drop[shape[:, 1] < shape[front, 1] - 0.003] = [0.0, -0.05, 0.0]  # a spike below the neck line
    low = dataclasses.replace(fit, parameters=fit.parameters | {"static_offset": drop[None]})
    assert picture_metrics(low, capture, head)["silhouette_iou"] > 0.99  # type: ignore[operator]
    wide = dataclasses.replace(fit, parameters=fit.parameters | {"static_offset": 0.3 * shape[None]})
    assert picture_metrics(wide, capture, head)["silhouette_iou"] < 0.75  # type: ignore[operator]


def test_flipped_triangles_are_counted(case: Case) -> None:
    fit, _, head, _ = case
    plain = fit.vertices_head(head)
    assert flipped_triangles(head, plain, plain) == 0
    faces, inside = head.faces.numpy(), head.face_mask("face").numpy()
    triangle = faces[np.flatnonzero(inside)[50]]
    a, b, c = plain[0, triangle]
    moved = plain.copy()
    moved[0, triangle[0]] = a + 2.2 * (0.5 * (b + c) - a)  # pushed over the opposite edge: the triangle turns over
    assert 1 <= flipped_triangles(head, moved, plain) <= 8
    outside = head.faces[~head.face_mask("face")].unique()
    far = plain.copy()
    only_outside = np.setdiff1d(outside.numpy(), faces[inside])
    far[0, only_outside] *= -1
    assert flipped_triangles(head, far, plain) == 0  # only the face counts


def test_landmark_errors(case: Case) -> None:
    fit, capture, head, _ = case
    points = fit.vertices_world(head)[:, head.regions["face"].numpy()[::20]]
    count = points.shape[1]
    detections = np.full((1, len(capture.cameras), count, 3), np.nan, np.float32)
    view = capture.views_of("landmark")[0]
    pixels = project(points[0], view.K, view.world_to_camera)
    detections[0, view.camera, :, :2] = pixels[:, :2] + [3.0, 4.0]
    detections[0, view.camera, :, 2] = 1
    write_landmarks(capture, Landmarks2D(detections, "toy", "toy"))
    shift = np.array([0.1, 0, 0])
    found = {
        "points": points + shift,
        "model": points,
        "spread_mm": np.full((1, count), 1.25),
        "used": np.ones((1, count), bool),
        "scheme": np.array("toy"),
    }
    values = landmark_metrics(dataclasses.replace(fit, landmarks3d=found), capture, fit.mm_per_unit)
    assert values["reprojection_px"]["median"] == pytest.approx(5, abs=1e-3)
    assert values["spread_mm"] == {"median": 1.25, "p95": 1.25}
    assert values["error_mm"]["median"] == pytest.approx(0.1 * fit.mm_per_unit)
    assert landmark_metrics(fit, capture, 1.0) == {}


def test_weighted_statistics() -> None:
    rng = np.random.default_rng(0)
    values, repeats = rng.random(200), rng.integers(1, 6, 200)
    stats = weighted_stats(values, repeats.astype(float))
    repeated = np.repeat(values, repeats)
    assert stats is not None
    assert stats["median"] == pytest.approx(np.median(repeated), abs=0.01)
    assert stats["p95"] == pytest.approx(np.percentile(repeated, 95), abs=0.01)
    assert stats["mean"] == pytest.approx(repeated.mean())
    assert weighted_stats(np.array([np.nan]), np.ones(1)) is None


def test_the_rim_is_where_edges_have_one_triangle() -> None:
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    on_edge = on_open_edge(faces, np.array([0, 0, 1]), np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.2, 0.3, 0.5]]))
    assert on_edge.tolist() == [True, False, False]


def test_warnings_name_what_is_out_of_range(case: Case) -> None:
    fit, capture, head, _ = case
    good = evaluate_fit(fit, capture, head)
    assert good["warnings"] == []
    bad = evaluate_fit(displaced(fit, head, 0.01), capture, head, thresholds=Thresholds(silhouette_iou=0.999))
    text = " ".join(bad["warnings"])
    assert "face is" in text and "Silhouettes" in text
    assert any("inside out" in line for line in out_of_range(good | {"flipped_triangles": 2}, Thresholds()))


def test_offsets_that_spoil_the_mesh_are_reported(case: Case) -> None:
    fit, capture, head, _ = case
    good = evaluate_fit(displaced(fit, head, 0.005), capture, head)["sanity"]
    assert good["scalp"]["offset_mm_max"] == pytest.approx(5)
    assert all(region["flipped"] == region["crossing"] == region["at_cap"] == 0 for region in good.values())
    # the crown is pushed down to the neck, farther than offsets may go
    offset = np.zeros((head.n_vertices, 3))
    offset[head.regions["scalp"].numpy(), 1] = -0.18
    spoilt = dataclasses.replace(fit, parameters=fit.parameters | {"static_offset": offset[None]})
    metrics = evaluate_fit(spoilt, capture, head)
    scalp = metrics["sanity"]["scalp"]
    assert scalp["at_cap"] == scalp["vertices"] and scalp["crossing"] > scalp["crossing_without_offsets"] == 0
    text = " ".join(metrics["warnings"])
    assert "100 % of the scalp" in text and "through each other" in text


def test_truth_files(case: Case, tmp_path: Path) -> None:
    fit, _, head, _ = case
    vertices = fit.vertices_world(head)[0]
    np.savez(tmp_path / "truth.npz", vertices=vertices, head_from_world=fit.head_from_world)
    truth = load_truth(tmp_path, head)
    assert truth is not None and truth.mm_per_unit == pytest.approx(fit.mm_per_unit)
    np.savez(tmp_path / "truth.npz", vertices=vertices[:10], head_from_world=fit.head_from_world)
    assert load_truth(tmp_path / "truth.npz", head) is None
    with pytest.raises(InputError, match="no ground truth"):
        load_truth(tmp_path / "nothing", head)


def test_a_truth_may_lack_the_models_teeth(case: Case, tmp_path: Path) -> None:
    fit, _, head, _ = case
    vertices, shown = fit.vertices_world(head)[0], head.n_vertices - 40
    toothed = copy.deepcopy(head)
    regions = head.regions | {"teeth": torch.arange(shown, head.n_vertices)}
    for name, ids in regions.items():
        toothed.register_buffer(f"region_{name}", ids)
    toothed._region_names = sorted(regions)
    np.savez(tmp_path / "truth.npz", vertices=vertices[:shown], mm_per_unit=1000.0)
    truth = load_truth(tmp_path / "truth.npz", toothed)
    assert truth is not None and len(truth.vertices) == shown and load_truth(tmp_path / "truth.npz", head) is None
    found = truth_metrics(toothed, vertices + [0.002, 0, 0], truth)
    assert found["face"]["to_truth_mm"]["median"] == pytest.approx(2.0)
    assert found["face"]["to_truth_surface_mm"]["median"] < 2.0


def test_keys_of_metrics_json(case: Case) -> None:
    fit, capture, head, _ = case
    metrics = evaluate_in_place(fit, head, capture)
    assert fit.folder is not None
    data = json.loads((fit.folder / "metrics.json").read_text())
    wanted = {
        *("regions", "landmarks", "silhouette_iou", "psnr_heldout_db", "psnr_heldout_union_db", "stages"),
        *("flipped_triangles", "scale_source", "head_model", "head_from_world", "warnings", "seconds", "sanity"),
    }
    assert wanted <= data.keys() and data["regions"].keys() == metrics["regions"].keys()
    assert {"to_avatar_mm", "from_avatar_mm"} <= data["regions"]["face"].keys()
    page = (fit.folder / "report.html").read_text()
    pictures = sorted(p.name for p in (fit.folder / "overlays").glob("*.jpg"))
    assert {"00_front.jpg", "animation.jpg", "error_to_avatar.jpg", "thumbnail.jpg"} <= set(pictures)
    assert "How the head moves" in page and page.count('class="stack"') == sum(p[0].isdigit() for p in pictures)
    assert {"fit", "neutral", "expression_1_plus"} <= data["animation"]["poses"].keys()
    assert data["animation"]["timestep"] == "00000"
    assert "://" not in page
    assert data["sanity"].keys() == {"face", "neck", "scalp"}
    assert data["sanity"]["face"]["triangles"] == int(head.face_mask("face").sum())
    assert "Soundness of the mesh" in page and "pass through others" in page
    table = metrics_table(data)
    assert "face" in table and "median" in table and "silhouette IoU" in table


def test_stage(case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    fit, _, head, folder = case
    monkeypatch.setattr("flame_fitting.fit.sources.load_head", lambda *asked, **options: head)
    np.savez(tmp_path / "truth.npz", vertices=fit.vertices_world(head)[0], head_from_world=fit.head_from_world)
    config = EvaluateConfig(fit=folder / "fit", ground_truth=tmp_path, figures=False)
    result = evaluate(config)
    assert result.metrics["regions"]["face"]["to_truth_mm"]["median"] < 1e-2
    assert "vertex to truth" in capsys.readouterr().out
    assert compare(read_manifest(folder / "fit" / REPORT_FOLDER), plan(config)) is None
    other = dataclasses.replace(config, mm_per_unit=3.0)
    assert "mm_per_unit" in (compare(read_manifest(folder / "fit" / REPORT_FOLDER), plan(other)) or "")
