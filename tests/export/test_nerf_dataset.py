"""The exported dataset: VHAP's layout, what GaussianAvatars and nerfstudio read, and where the world is."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flame_fitting.capture.camera import project, world_to_camera_from_opengl
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.subset import select
from flame_fitting.errors import InputError
from flame_fitting.export.flame_files import flame_parameters
from flame_fitting.export.nerf_dataset import (
    ExportOptions,
    export_nerf_dataset,
)
from flame_fitting.export.splits import split_cameras, split_timesteps
from flame_fitting.export_as_nerf_dataset import ExportConfig, export
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import InputRecord, Manifest, compare, read_manifest
from flame_fitting.options import not_deciding
from tests.synthetic import known_fit, render_case, save_case, similarity
from tests.toy import toy_head_data

NECK = {
    "neck_left_point": [0.06, -0.06, 0.0],
    "neck_right_point": [-0.06, -0.06, 0.0],
    "front_middle_bottom_point_boundary": [0.0, -0.06, 0.08],
}
Case = tuple[FitResult, Capture, HeadModel, Path]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    data = toy_head_data()
    for name, place in NECK.items():  # higher than the toy's own, so that there is something to cut
        data.regions[name] = np.array([int(np.argmin(np.linalg.norm(data.v_template - place, axis=1)))])
    head = HeadModel(data)
    fit = known_fit(head, similarity())
    capture = render_case(folder, head, fit, n_fit=10, n_heldout=3, size=96)
    fit.folder = save_case(folder / "fit", fit, capture)
    return fit, capture, head, folder


@pytest.fixture(scope="module")
def dataset(case: Case) -> Path:
    fit, capture, head, folder = case
    export_nerf_dataset(fit, capture, head, folder / "export")
    return folder / "export"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_layout(dataset: Path) -> None:
    names = {p.relative_to(dataset).as_posix() for p in dataset.rglob("*") if p.is_file()}
    transforms = {"transforms.json", "transforms_train.json", "transforms_val.json", "transforms_test.json"}
    pictures = {f"{kind}/00000_{c:02d}.png" for kind in ("images", "fg_masks") for c in range(13)}
    alphas = {f"images/00000_{c:02d}.png.alpha.png" for c in range(13)}
    rest = {"flame_param/00000.npz", "canonical_flame_param.npz", "points3d.ply"}
    assert names == transforms | pictures | alphas | rest
    for kind, mode in (("images", "RGB"), ("fg_masks", "L")):
        with Image.open(dataset / kind / "00000_00.png") as picture:
            assert picture.mode == mode and picture.size == (96, 96)


def test_frames_have_the_keys_that_readers_want(dataset: Path, case: Case) -> None:
    wanted = {
        *("timestep_index", "timestep_index_original", "timestep_id", "camera_index", "camera_id"),
        *("cx", "cy", "fl_x", "fl_y", "h", "w", "camera_angle_x", "camera_angle_y"),
        *("transform_matrix", "file_path", "fg_mask_path", "flame_param_path"),
    }
    data = read(dataset / "transforms.json")
    for frame in data["frames"]:
        assert wanted <= frame.keys()
        for key in ("file_path", "fg_mask_path", "flame_param_path"):
            assert (dataset / frame[key]).is_file()
        assert "mask_path" not in frame  # nerfstudio would never train what it leaves out
        # what GaussianAvatars uses: a centred principal point, square pixels, the angle over the width
        assert frame["cx"] == frame["w"] / 2 and frame["cy"] == frame["h"] / 2
        assert frame["camera_angle_x"] == pytest.approx(2 * np.arctan(frame["w"] / 2 / frame["fl_x"]))
    assert data["timestep_indices"] == [0] and data["camera_indices"] == list(range(13))
    assert data["fl_x"] == data["frames"][0]["fl_x"]  # shared by all, so also at the top level
    np.testing.assert_allclose(data["provenance"]["head_from_world"], case[0].head_from_world)


def test_instant_ngp_is_told_where_up_is(dataset: Path) -> None:
    """It turns the vector as it turns the poses; without it +Z would be up."""
    for name in ("transforms.json", "transforms_train.json", "transforms_val.json", "transforms_test.json"):
        assert read(dataset / name)["up"] == [0, 1, 0]


def test_instant_ngp_takes_the_mask_for_alpha(dataset: Path) -> None:
    """Its loader decodes <picture>.alpha.png as sRGB and cuts the result off to 8 bits."""
    for camera in range(13):
        mask = np.asarray(Image.open(dataset / "fg_masks" / f"00000_{camera:02d}.png")).astype(int)
        stored = np.asarray(Image.open(dataset / "images" / f"00000_{camera:02d}.png.alpha.png")) / 255.0
        linear = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
        assert np.abs((255 * linear + 1e-6).astype(int) - mask).max() <= 1


def test_points_to_begin_with_lie_on_the_head_above_the_cut(dataset: Path, case: Case) -> None:
    import trimesh

    fit, _, head, _ = case
    assert read(dataset / "transforms.json")["ply_file_path"] == "points3d.ply"
    points = trimesh.load(dataset / "points3d.ply")
    vertices = fit.vertices_head(head)[0]
    distance = np.linalg.norm(points.vertices[:, None] - vertices[None], axis=2).min(axis=1)
    assert distance.max() < 1e-6 and 0.5 * len(vertices) < len(points.vertices) < len(vertices)
    assert len(np.unique(points.colors, axis=0)) > 2


def test_an_input_that_changed_meanwhile_is_said(case: Case, tmp_path: Path) -> None:
    fit, capture, head, _ = case

    def plan(sha256: str) -> Manifest:
        return Manifest(stage="export", inputs={"fit": InputRecord("fit", sha256), "capture": InputRecord("r", "1")})

    summary = export_nerf_dataset(fit, capture, head, tmp_path / "a", manifest=plan("1"), plan=lambda: plan("2"))
    assert [text for text in summary.warnings if text.startswith("fit: changed while")]
    made = read_manifest(tmp_path / "a")
    assert made is not None and made.changed_inputs == ["fit"]
    same = export_nerf_dataset(fit, capture, head, tmp_path / "b", manifest=plan("1"), plan=lambda: plan("1"))
    assert not [text for text in same.warnings if "changed" in text]


def test_split_is_by_camera(dataset: Path) -> None:
    cameras = {
        s: [f["camera_index"] for f in read(dataset / f"transforms_{s}.json")["frames"]]
        for s in ("train", "val", "test")
    }
    assert cameras["val"] == [7] and cameras["test"] == [10, 11, 12]
    assert cameras["train"] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    data = read(dataset / "transforms.json")
    assert len(data["train_filenames"]) == 9 and data["test_filenames"][0] == "images/00000_10.png"
    assert read(dataset / "transforms_test.json")["camera_indices"] == [10, 11, 12]


def test_split_rules() -> None:
    many = split_cameras(list(range(32)), [40, 41])
    assert [c for c, s in many.items() if s == "val"] == [7, 15, 23, 31]
    assert [c for c, s in many.items() if s == "test"] == [40, 41]
    assert split_cameras([0, 1, 2], []) == {0: "train", 1: "train", 2: "val"}
    assert split_cameras([5], []) == {5: "train"}
    by_time = split_timesteps(list(range(10)), list(range(16)))
    assert by_time(6, 8) == "val" and by_time(6, 0) == "train" and by_time(7, 8) == "test"


def test_world_is_metric_head_space(dataset: Path, case: Case) -> None:
    """Head-space vertices project to the pixels at which the capture shows them."""
    fit, capture, head, _ = case
    in_head, in_world = fit.vertices_head(head)[0], fit.vertices_world(head)[0]
    frames = {f["camera_id"]: f for f in read(dataset / "transforms.json")["frames"]}
    for view in capture.views_of("fit", "heldout"):
        frame = frames[f"{view.camera:02d}"]
        c2w = np.array(frame["transform_matrix"])
        np.testing.assert_allclose(c2w[:3, :3] @ c2w[:3, :3].T, np.eye(3), atol=1e-9)
        assert 0.5 < np.linalg.norm(c2w[:3, 3]) < 1.5  # metres
        K = np.array([[frame["fl_x"], 0, frame["cx"]], [0, frame["fl_y"], frame["cy"]], [0, 0, 1]])
        new = project(in_head, K, world_to_camera_from_opengl(c2w))
        old = project(in_world, view.K, view.world_to_camera)
        np.testing.assert_allclose(new[:, :2], old[:, :2], atol=1e-6)


def test_parameters_have_vhap_shapes(dataset: Path, case: Case) -> None:
    fit, _, head, _ = case
    shapes = {"translation": (1, 3), "rotation": (1, 3), "neck_pose": (1, 3), "jaw_pose": (1, 3), "eyes_pose": (1, 6)}
    shapes |= {"shape": (6,), "expr": (1, 4), "static_offset": (1, head.n_vertices, 3)}
    with np.load(dataset / "flame_param/00000.npz") as data:
        assert {key: data[key].shape for key in data.files} == shapes
        assert all(data[key].dtype == np.float32 for key in data.files)
        np.testing.assert_allclose(data["shape"], fit.parameters["shape"], rtol=1e-6)
        np.testing.assert_allclose(data["jaw_pose"], [[0.1, 0, 0]], rtol=1e-6)
    with np.load(dataset / "canonical_flame_param.npz") as data:
        assert {key: data[key].shape for key in data.files} == shapes
        np.testing.assert_allclose(data["jaw_pose"], [[0.3, 0, 0]], rtol=1e-6)
        assert not data["expr"].any() and data["shape"].any()


def test_flame_heads_get_full_bases() -> None:
    data = toy_head_data()
    count, faces = 5023, 9976
    head = HeadModel(
        dataclasses.replace(
            data,
            v_template=np.zeros((count, 3)),
            faces=np.zeros((faces, 3), np.int64),
            shapedirs=np.zeros((count, 3, 6)),
            exprdirs=np.zeros((count, 3, 4)),
            posedirs=np.zeros((count, 3, 36)),
            J_regressor=np.zeros((5, count)),
            weights=np.zeros((count, 5)),
            regions={},
            uv=None,
            uv_faces=None,
        )
    )
    out = flame_parameters(known_fit(head, np.eye(4)), head, 0)
    assert out["shape"].shape == (300,) and out["expr"].shape == (1, 100)
    assert out["static_offset"].shape == (1, 5023, 3)


def test_pictures_and_masks_are_cut_below_the_neck(dataset: Path, case: Case) -> None:
    fit, capture, head, folder = case
    export_nerf_dataset(fit, capture, head, folder / "uncut", ExportOptions(mask_below_line=False))
    cut = np.asarray(Image.open(dataset / "fg_masks/00000_00.png"), dtype=int)
    uncut = np.asarray(Image.open(folder / "uncut/fg_masks/00000_00.png"), dtype=int)
    alpha = np.rint(capture.alpha(capture.views[0]) * 255).astype(int)
    np.testing.assert_array_equal(uncut, alpha)
    front = head.regions["front_middle_bottom_point_boundary"].numpy()
    line = project(fit.vertices_world(head)[0][front], capture.views[0].K, capture.views[0].world_to_camera)[0, 1]
    below, above = int(line + 5), int(line - 5)
    assert alpha[below:].max() > 0 and cut[below:].max() == 0
    np.testing.assert_array_equal(cut[:above], alpha[:above])
    image = np.asarray(Image.open(dataset / "images/00000_00.png"))
    assert (image[below:] == 255).all()  # the background's colour below the line


def test_background_is_replaced(case: Case) -> None:
    fit, capture, head, folder = case
    options = ExportOptions(background_color=(0.0, 1.0, 0.0), mask_below_line=False)
    export_nerf_dataset(fit, capture, head, folder / "green", options)
    image = np.asarray(Image.open(folder / "green/images/00000_00.png"))
    alpha = capture.alpha(capture.views[0])
    assert (image[alpha == 0] == (0, 255, 0)).all()
    original = (capture.image(capture.views[0]).transpose(1, 2, 0) * 255).round()
    assert np.abs(image[alpha == 1] - original[alpha == 1]).max() <= 1


def test_scale_factor_scales_pictures_and_intrinsics(case: Case, dataset: Path) -> None:
    fit, capture, head, folder = case
    export_nerf_dataset(fit, capture, head, folder / "half", ExportOptions(scale_factor=0.5))
    small, full = (read(f / "transforms.json")["frames"][0] for f in (folder / "half", dataset))
    assert (small["w"], small["h"]) == (48, 48)
    for key in ("fl_x", "fl_y", "cx", "cy"):
        assert small[key] == pytest.approx(full[key] / 2)
    assert small["camera_angle_x"] == pytest.approx(full["camera_angle_x"])
    with Image.open(folder / "half/images/00000_00.png") as picture:
        assert picture.size == (48, 48)
    with pytest.raises(InputError, match=r"scale-factor 0\.1: next to nothing is left of 96 x 96 px"):
        export_nerf_dataset(fit, capture, head, folder / "no", ExportOptions(scale_factor=0.1))
    with pytest.raises(InputError, match="scale-factor"):
        export_nerf_dataset(fit, capture, head, folder / "no", ExportOptions(scale_factor=2.0))


def test_mesh_mode(case: Case) -> None:
    fit, capture, head, folder = case
    export_nerf_dataset(fit, capture, head, folder / "mesh", ExportOptions(flame_mode="mesh", subset="ci0"))
    frame = read(folder / "mesh/transforms.json")["frames"][0]
    assert frame["mesh_path"] == "meshes/00000.obj" and frame["exp_path"] == "flame/exp/00000.txt"
    np.testing.assert_allclose(np.loadtxt(folder / "mesh/flame/exp/00000.txt"), fit.parameters["expr"][0], rtol=1e-6)
    rows = [
        line.split()[1:] for line in (folder / "mesh/meshes/00000.obj").read_text().splitlines() if line[:2] == "v "
    ]
    np.testing.assert_allclose(np.array(rows, float), fit.vertices_head(head)[0], atol=1e-7)
    assert (folder / "mesh/canonical.obj").is_file() and not (folder / "mesh/flame_param").exists()


def test_subset_selects_cameras(case: Case) -> None:
    fit, capture, head, folder = case
    export_nerf_dataset(fit, capture, head, folder / "some", ExportOptions(subset="cs4"))
    data = read(folder / "some/transforms.json")
    assert data["camera_indices"] == [0, 4, 8, 12]
    assert len(list((folder / "some/fg_masks").iterdir())) == 4


@pytest.mark.parametrize(
    ("text", "timesteps", "cameras"),
    [
        (None, list(range(10)), list(range(6))),
        ("ti3", [3], list(range(6))),
        ("ti2tj4", [2, 3, 4], list(range(6))),
        ("tn2", [0, 5], list(range(6))),
        ("ts4_cs3", [0, 4, 8], [0, 3]),
        ("ci5", list(range(10)), [5]),
        ("tn3cn2", [0, 3, 6], [0, 3]),
    ],
)
def test_subset_grammar(text: str | None, timesteps: list[int], cameras: list[int]) -> None:
    assert select(text, list(range(10)), list(range(6))) == (timesteps, cameras)


@pytest.mark.parametrize("text", ["x3", "ti", "ti99", "tn0", "ti3-4"])
def test_wrong_subsets_are_input_errors(text: str) -> None:
    with pytest.raises(InputError, match=f"--subset {text}"):
        select(text, list(range(10)), list(range(6)))


def test_foreign_folder_is_refused_and_stays(case: Case, tmp_path: Path) -> None:
    fit, capture, head, _ = case
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="--force"):
        export_nerf_dataset(fit, capture, head, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_stage_finds_its_inputs_and_is_reusable(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from flame_fitting import export_as_nerf_dataset as stage

    _, _, head, folder = case
    monkeypatch.setattr("flame_fitting.fit.sources.load_head", lambda *asked, **options: head)
    config = ExportConfig(src_folder=folder, tgt_folder=tmp_path / "data", background_color="black")  # VHAP: the parent
    summary = export(config)
    assert summary.counts == {"train": 9, "val": 1, "test": 3}
    assert "not in GaussianAvatars, which needs FLAME" in capsys.readouterr().err
    assert compare(read_manifest(tmp_path / "data"), stage.plan(config), not_deciding(ExportConfig)) is None
    other = dataclasses.replace(config, background_color="white")
    assert "background_color black -> white" in (compare(read_manifest(tmp_path / "data"), stage.plan(other)) or "")


def test_missing_epoch_and_missing_fit_are_input_errors(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, head, folder = case
    monkeypatch.setattr("flame_fitting.fit.sources.load_head", lambda *asked, **options: head)
    with pytest.raises(InputError, match="tracked_flame_params_5"):
        export(ExportConfig(src_folder=folder / "fit", tgt_folder=tmp_path / "a", epoch=5))
    with pytest.raises(InputError, match="nowhere"):
        export(ExportConfig(src_folder=tmp_path / "nowhere", tgt_folder=tmp_path / "b"))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_background_that_cannot_be_put_behind_is_said(case: Case, tmp_path: Path) -> None:
    fit, capture, head, _ = case
    bare = dataclasses.replace(
        capture, views=[dataclasses.replace(view, mask_path=None) for view in capture.views[:12]] + capture.views[12:]
    )
    options = ExportOptions(background_color=(0.0, 0.0, 0.0), mask_below_line=False)
    said = [export_nerf_dataset(fit, one, head, tmp_path / "out", options, True).warnings for one in (bare, capture)]
    assert len(said[0]) == len(said[1]) + 1
    assert f"{capture.root}: 12 of 13 pictures have no alpha map: their background stays" in said[0][0]
    plain = ExportOptions(mask_below_line=False)
    assert export_nerf_dataset(fit, bare, head, tmp_path / "out", plain, True).warnings == said[1]
