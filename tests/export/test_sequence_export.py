"""Export over time: every vertex stays at its pixel, whichever form the fit comes in; splits, subsets, backgrounds."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from flame_fitting.capture.camera import project
from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.export.nerf_dataset import ExportOptions, export_nerf_dataset
from flame_fitting.export.splits import named_camera, split_timesteps
from flame_fitting.export_as_nerf_dataset import ExportConfig, export
from flame_fitting.fit.result import FitResult, save_parameters
from flame_fitting.fit.vhap_runs import aligned_world
from flame_fitting.head.model import HeadModel
from tests.export.sequences import (
    FOCAL,
    SIZES,
    STEPS,
    entries_of,
    exported_pixels,
    monocular_folder,
    moving_fit,
    neck_head,
    rig_cameras,
    rig_capture,
    single_camera,
    turned,
    write_run,
)
from tests.synthetic import save_case

Case = tuple[FitResult, Capture, HeadModel, Path]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder, head = tmp_path_factory.mktemp("moving"), neck_head()
    fit = moving_fit(head)
    capture = rig_capture(folder / "render", head, fit)
    fit.folder = save_case(folder / "fit", fit, capture)
    return fit, capture, head, folder


@pytest.fixture(scope="module")
def monocular(case: Case) -> Path:
    fit, _, head, folder = case
    return monocular_folder(folder / "monocular" / "talking", head, fit)


@pytest.fixture(autouse=True)
def toy_model(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flame_fitting.fit.sources.load_head", lambda *asked, **options: case[2])


def check_pixels(
    folder: Path, case: Case, cameras: list, splits: tuple[str, ...] = ("train", "val", "test")
) -> set[tuple[int, int]]:
    """Every exported frame shows the head where the source capture does; returns the timesteps and cameras seen."""
    fit, _, head, _ = case
    world, seen = fit.vertices_world(head), set()
    for split in splits:
        for entry in entries_of(folder, split):
            t, c = int(entry["timestep_id"]), entry["camera_index"]
            K, w2c, size = cameras[c]
            wanted = project(world[t], K, w2c)[:, :2] * (entry["w"] / size[0], entry["h"] / size[1])
            np.testing.assert_allclose(exported_pixels(folder, entry, head), wanted, atol=2e-3)
            with Image.open(folder / entry["file_path"]) as picture:
                assert picture.size == (entry["w"], entry["h"])
            seen.add((t, c))
    return seen


@pytest.mark.parametrize("recenter", [True, False])
def test_every_vertex_stays_at_its_pixel(case: Case, tmp_path: Path, recenter: bool) -> None:
    export(ExportConfig(case[3] / "fit", tmp_path / "out", recenter=recenter))
    seen = check_pixels(tmp_path / "out", case, rig_cameras())
    assert seen == {(t, c) for t in range(STEPS) for c in range(3)}
    paths = sorted((tmp_path / "out" / "flame_param").iterdir())
    mean = np.mean([np.load(path)["translation"][0] for path in paths], axis=0)
    expected = np.zeros(3) if recenter else case[0].parameters["translation"].mean(0)
    np.testing.assert_allclose(mean, expected, atol=1e-7)
    assert {"dynamic_offset", "static_offset"} <= set(np.load(paths[0]).files)
    assert np.load(paths[0])["dynamic_offset"].shape == (1, case[2].n_vertices, 3)
    assert not np.load(tmp_path / "out" / "canonical_flame_param.npz")["dynamic_offset"].any()


def test_intrinsics_that_differ_are_per_frame_alone(case: Case, tmp_path: Path) -> None:
    import json

    export(ExportConfig(case[3] / "fit", tmp_path / "out"))
    data = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert not {"fl_x", "w", "h", "cx", "cy"} & data.keys()
    assert {(f["w"], f["h"]) for f in data["frames"]} == set(SIZES)


def test_scaled_pictures_keep_vertices_at_their_place(case: Case, tmp_path: Path) -> None:
    export(ExportConfig(case[3] / "fit", tmp_path / "out", scale_factor=0.6))
    check_pixels(tmp_path / "out", case, rig_cameras())


def test_a_run_of_vhap_with_turned_world_gives_the_same_pixels(case: Case, tmp_path: Path) -> None:
    fit, capture, head, _ = case
    turn = aligned_world(capture.views)
    assert np.abs(turn[:3, :3] - np.eye(3)).max() > 0.05
    run = turned(fit, head, turn[:3, :3])
    data = {"root_folder": capture.root.parent, "sequence": "rend", "calibrated": True, "align_cameras_to_axes": True}
    write_run(tmp_path / "track" / "2024-01-01_10-00-00", run, data)
    export(ExportConfig(tmp_path / "track", tmp_path / "out"))  # the parent of the run, as in VHAP's commands
    check_pixels(tmp_path / "out", case, rig_cameras())
    # the mean camera looks down -z of the dataset's world, upright
    poses = [np.array(entry["transform_matrix"])[:3, :3] for entry in entries_of(tmp_path / "out")]
    assert np.diag(np.mean(poses, axis=0)).min() > 0.8
    assert np.abs(np.mean(poses, axis=0) - np.mean(poses, axis=0).T).max() < 0.1


def test_epochs_of_a_run(case: Case, tmp_path: Path) -> None:
    fit, capture, _, _ = case
    data = {"root_folder": capture.root.parent, "sequence": "render", "calibrated": True}
    run = write_run(tmp_path / "track" / "2024-01-01_10-00-00", fit, data, epochs=(0, 5, 30))
    summary = export(ExportConfig(run, tmp_path / "out", epoch=5, recenter=False))
    assert summary.folder.name == "out_epoch5"
    first = np.load(summary.folder / "flame_param" / "00000.npz")["translation"][0]
    np.testing.assert_allclose(first, fit.parameters["translation"][0] + 0.01, atol=1e-6)
    with pytest.raises(InputError, match=r"Epochs that were saved: 0, 5, 30"):
        export(ExportConfig(run, tmp_path / "none", epoch=7))


@pytest.mark.parametrize("form", ["run", "fit"])
def test_a_monocular_capture_has_the_focal_length_of_the_fit(
    case: Case, monocular: Path, tmp_path: Path, form: str
) -> None:
    fit = replace(case[0], timestep_id=[f"{t:06d}" for t in range(STEPS)], focal_length=FOCAL)
    if form == "run":
        data = {"root_folder": monocular.parent, "sequence": "talking", "calibrated": False}
        source = write_run(
            tmp_path / "track" / "2024", fit, data, focal_length=np.array([FOCAL]), image_size=np.array([90, 72])
        )
    else:
        source = tmp_path / "fit"
        source.mkdir()
        save_parameters(source / "tracked_flame_params.npz", fit)
    place = None if form == "run" else monocular
    export(ExportConfig(source, tmp_path / "out", capture_folder=place, background_color="black"))
    check_pixels(tmp_path / "out", case, [single_camera()])
    entry = entries_of(tmp_path / "out")[0]
    assert entry["fl_x"] == pytest.approx(FOCAL * 90) and (entry["cx"], entry["cy"]) == (36, 45)
    assert not entries_of(tmp_path / "out", "val")  # a single camera
    picture = np.asarray(Image.open(tmp_path / "out" / entry["file_path"]), dtype=int)
    mask = np.asarray(Image.open(tmp_path / "out" / entry["fg_mask_path"]), dtype=int)
    assert picture[mask == 0].max() == 0 and (mask > 250).sum() > 200  # no green of the real background, nowhere
    inside = picture[cv2.erode((mask > 250).astype(np.uint8), np.ones((5, 5))) > 0]
    assert np.abs(inside[:, 1] - inside[:, 0]).max() < 25  # the head is grey


def test_evaluate_takes_the_parent_of_a_run_or_a_flat_fit(case: Case, tmp_path: Path) -> None:
    from flame_fitting.evaluate import EvaluateConfig, evaluate

    fit, capture, _, _ = case
    data = {"root_folder": capture.root.parent, "sequence": "render", "calibrated": True}
    write_run(tmp_path / "track" / "2024-01-01_10-00-00", fit, data)
    save_case(tmp_path / "fit", fit, capture)
    found = [
        evaluate(EvaluateConfig(tmp_path / place, figures=False)).metrics["silhouette_iou"]
        for place in ("track", "fit")
    ]
    assert min(found) > 0.99 and found[0] == found[1]


def test_a_part_that_was_tracked_is_matched_by_its_names(case: Case, monocular: Path, tmp_path: Path) -> None:
    fit = case[0].of_rows([1, 3])
    fit = replace(fit, timestep_id=[f"{t:06d}" for t in range(STEPS)])  # VHAP names all that it found
    data = {"root_folder": monocular.parent, "sequence": "talking", "subset": "ti1tj4ts2", "calibrated": False}
    run = write_run(tmp_path / "run", fit, data, focal_length=np.array([FOCAL]))
    export(ExportConfig(run, tmp_path / "out"))
    assert check_pixels(tmp_path / "out", case, [single_camera()]) == {(1, 0), (3, 0)}
    indices = [(e["timestep_index"], e["timestep_index_original"]) for e in entries_of(tmp_path / "out")]
    assert indices == [(0, 1), (1, 3)]


def test_subset_of_an_export_keeps_parameters_and_pictures_together(case: Case, tmp_path: Path) -> None:
    export(ExportConfig(case[3] / "fit", tmp_path / "out", subset="ti2tj4_ci1"))
    assert check_pixels(tmp_path / "out", case, rig_cameras()) == {(2, 1), (3, 1), (4, 1)}
    assert sorted(p.name for p in (tmp_path / "out" / "fg_masks").iterdir()) == [f"0000{t}_01.png" for t in range(3)]
    assert [e["timestep_index_original"] for e in entries_of(tmp_path / "out")] == [2, 3, 4]


def test_meshes_lie_where_the_pictures_show_them(case: Case, tmp_path: Path) -> None:
    export(ExportConfig(case[3] / "fit", tmp_path / "out", flame_mode="mesh", subset="ci0"))
    from flame_fitting.capture.camera import world_to_camera_from_opengl

    world = case[0].vertices_world(case[2])
    for entry in entries_of(tmp_path / "out"):
        lines = (tmp_path / "out" / entry["mesh_path"]).read_text().splitlines()
        vertices = np.array([line.split()[1:] for line in lines if line[:2] == "v "], float)
        K = np.array([[entry["fl_x"], 0, entry["cx"]], [0, entry["fl_y"], entry["cy"]], [0, 0, 1]])
        pixels = project(vertices, K, world_to_camera_from_opengl(np.array(entry["transform_matrix"])))
        K, w2c, _ = rig_cameras()[0]
        np.testing.assert_allclose(pixels[:, :2], project(world[int(entry["timestep_id"])], K, w2c)[:, :2], atol=2e-3)


def test_split_over_time_and_its_options(case: Case, tmp_path: Path) -> None:
    fit, capture, head, _ = case

    def splits(name: str, **options: object) -> dict[str, list[tuple[int, int]]]:
        export_nerf_dataset(fit, capture, head, tmp_path / name, ExportOptions(scale_factor=0.3, **options))  # type: ignore[arg-type]
        return {
            split: [(e["timestep_index"], e["camera_index"]) for e in entries_of(tmp_path / name, split)]
            for split in ("train", "val", "test")
        }

    default = splits("default")
    assert default["val"] == [(t, 2) for t in range(4)] and len(default["train"]) == 8  # ceil(0.7 * 5) timesteps
    assert default["test"] == [(4, c) for c in range(3)]
    other = splits("other", train_ratio=0.4, val_camera="0")
    assert other["val"] == [(0, 0), (1, 0)] and other["test"] == [(t, c) for t in (2, 3, 4) for c in range(3)]
    whole = splits("whole", train_ratio=1.0, val_camera="none")
    assert not whole["val"] and not whole["test"] and len(whole["train"]) == 15
    with pytest.raises(InputError, match="--val-camera 7: no such camera"):
        splits("wrong", val_camera="7")


def test_split_rules() -> None:
    by_time = split_timesteps(list(range(10)), list(range(16)))
    assert by_time(6, 8) == "val" and by_time(6, 0) == "train" and by_time(7, 8) == "test"
    assert split_timesteps([3], [0])(3, 0) == "train"
    assert named_camera("222200037", {0: "222200036", 1: "222200037"}) == [1]
    assert named_camera("1", {0: "1", 1: "2"}) == [0]  # its name counts before its index


def test_a_capture_without_the_timesteps_of_the_fit_is_refused(case: Case, tmp_path: Path) -> None:
    fit = replace(case[0], timestep_id=[f"{t:05d}" for t in range(4)] + ["00099"])
    fit = fit.of_rows([0, 1, 2, 4])
    save_case(tmp_path / "fit", fit, case[1])
    with pytest.raises(InputError, match="4 timesteps"):
        export(ExportConfig(tmp_path / "fit", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
