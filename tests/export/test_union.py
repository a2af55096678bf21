"""combine: pixels, indices, splits and the rules of a union of datasets."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame_fitting.capture.camera import project
from flame_fitting.combine_nerf_datasets import CombineConfig, combine, plan
from flame_fitting.errors import InputError
from flame_fitting.export.transforms_files import EYELIDS_NAME
from flame_fitting.export.union import divide
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import compare, read_manifest
from flame_fitting.options import not_deciding
from tests.export.jobs import exported
from tests.export.sequences import entries_of, exported_pixels, moving_fit, neck_head, rig_cameras, rig_capture
from tests.synthetic import known_fit, render_case, similarity

SOURCES = {"074_A_x": "ti0tj1", "074_B_x": "ti2tj4", "074_C_x": "ti1"}
Case = tuple[FitResult, HeadModel, Path]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Exports of three parts of a sequence (2, 3 and 1 timesteps) and of a static avatar, all in one folder."""
    folder, head = tmp_path_factory.mktemp("union"), neck_head()
    fit = moving_fit(head)
    capture = rig_capture(folder / "render", head, fit)
    (folder / "export").mkdir()
    for name, subset in SOURCES.items():
        target = folder / "export" / name
        exported(fit, capture, head, target, subset=subset, scale_factor=0.5, mask_below_line=False)
    still = known_fit(head, similarity())
    rendered = render_case(folder / "still", head, still, n_fit=3, n_heldout=1, size=32)
    exported(still, rendered, head, folder / "export" / "toy_still")
    return fit, head, folder / "export"


def sources(case: Case, *names: str) -> tuple[Path, ...]:
    return tuple(case[2] / name for name in names or SOURCES)


def check_pixels(folder: Path, case: Case) -> int:
    fit, head, _ = case
    world, count = fit.vertices_world(head), 0
    for split in ("train", "val", "test"):
        for entry in entries_of(folder, split):
            K, w2c, size = rig_cameras()[entry["camera_index"]]
            wanted = project(world[int(entry["timestep_id"])], K, w2c)[:, :2]
            wanted = wanted * (entry["w"] / size[0], entry["h"] / size[1])
            np.testing.assert_allclose(exported_pixels(folder, entry, head), wanted, atol=2e-3)
            assert (folder / entry["file_path"]).is_file() and (folder / entry["fg_mask_path"]).is_file()
            count += 1
    return count


@pytest.mark.parametrize("copies", [False, True])
def test_every_vertex_stays_at_its_pixel(case: Case, tmp_path: Path, copies: bool) -> None:
    target = tmp_path / "elsewhere" if copies else case[2] / "UNION3_074"
    summary = combine(CombineConfig(sources(case), target, "last", copy_images=copies))
    assert summary.trainval == ["074_A_x", "074_B_x"] and summary.test == ["074_C_x"]
    assert check_pixels(target, case) == 18
    entries = entries_of(target)
    # counted on: 2 timesteps of A, 3 of B, then C
    assert {e["timestep_index"] for e in entries if e["sequence"] == "074_B_x"} == {2, 3, 4}
    assert {e["timestep_index"] for e in entries if e["sequence"] == "074_C_x"} == {5}
    assert {e["timestep_index_original"] for e in entries if e["sequence"] == "074_B_x"} == {2, 3, 4}
    assert {e["timestep_index_original"] for e in entries if e["sequence"] == "074_C_x"} == {1}
    assert len({(e["timestep_index"], e["camera_index"]) for e in entries}) == 18
    start = "images/" if copies else "../074_A_x/images/"
    assert entries[0]["file_path"].startswith(start)
    # all timesteps of what trains: the last ones, which tested in the source, too; its validating camera validates
    assert {e["timestep_index"] for e in entries_of(target, "train")} == set(range(5))
    assert {e["camera_index"] for e in entries_of(target, "val")} == {2}
    assert {e["camera_index"] for e in entries_of(target, "train")} == {0, 1}
    assert {e["sequence"] for e in entries_of(target, "test")} == {"074_C_x"}
    assert (target / "sequences_trainval.txt").read_text().split() == ["074_A_x", "074_B_x"]
    assert (target / "sequences_test.txt").read_text().split() == ["074_C_x"]
    canonical = (target / "canonical_flame_param.npz").read_bytes()
    assert canonical == (case[2] / "074_A_x" / "canonical_flame_param.npz").read_bytes()
    assert (target / "images").exists() == copies
    # what nerfstudio begins with, and the alpha that instant-ngp looks for beside each picture
    named = json.loads((target / "transforms.json").read_text())["ply_file_path"]
    assert (target / named).read_bytes() == (case[2] / "074_A_x" / "points3d.ply").read_bytes()
    for entry in entries:
        picture = target / entry["file_path"]
        assert (picture.parent / f"{picture.name}.alpha.png").is_file()


def test_unions_name_unit_and_a_background_that_all_have(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "union"
    combine(CombineConfig(sources(case), target, "last", copy_images=True))
    said = json.loads((target / "transforms_train.json").read_text())
    assert said["unit"] == "m" and said["background_color"] == [1.0, 1.0, 1.0]
    other = tmp_path / "074_D_x"
    shutil.copytree(case[2] / "074_C_x", other)
    for path in other.glob("transforms*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"background_color": [0.0, 0.0, 0.0]}))
    combine(CombineConfig((*sources(case), other), tmp_path / "mixed", "last", copy_images=True))
    assert "background_color" not in json.loads((tmp_path / "mixed" / "transforms.json").read_text())


def test_a_single_source_keeps_its_splits(case: Case) -> None:
    target = case[2] / "UNION1_074"
    summary = combine(CombineConfig(sources(case, "074_B_x"), target))
    for split in ("train", "val", "test"):
        mine, own = ([(e["timestep_index"], e["camera_index"]) for e in entries_of(f, split)]
                     for f in (target, case[2] / "074_B_x"))  # fmt: skip
        assert mine == own
    assert summary.trainval == summary.test == ["074_B_x"] and summary.counts["test"] == 0
    assert check_pixels(target, case) == 9


def test_static_avatars_keep_the_roles_of_their_views(case: Case) -> None:
    parent = case[2]
    for name in ("toy_two", "toy_three"):
        shutil.copytree(parent / "toy_still", parent / name)
    combine(CombineConfig(sources(case, "toy_still", "toy_two", "toy_three"), parent / "UNION3_toy", "last"))
    found = {split: entries_of(parent / "UNION3_toy", split) for split in ("train", "val", "test")}
    own = {split: [e["camera_index"] for e in entries_of(parent / "toy_still", split)] for split in found}
    for split in ("train", "val"):
        assert [e["camera_index"] for e in found[split]] == own[split] * 2
    assert [e["camera_index"] for e in found["test"] if e["timestep_index"] < 2] == own["test"] * 2
    assert len([e for e in found["test"] if e["timestep_index"] == 2]) == sum(map(len, own.values()))


def test_division_is_fixed_by_the_subject() -> None:
    names = [f"074_{k}" for k in range(25)]
    train, test = divide(names, "random_group", "074")
    assert len(test) == 2 and train == [n for n in names if n not in test]
    assert names.index(test[0]) < 12 <= names.index(test[1])  # one of each group
    assert divide(names, "random_group", "074") == (train, test)
    assert len({tuple(divide(names, "random_group", str(s))[1]) for s in range(20)}) > 5
    assert divide(names[:3], "last", "074") == (names[:2], names[2:3])
    assert len(divide(names[:9], "random_single", "a")[1]) == len(divide(names[:19], "random_group", "a")[1]) == 1
    assert divide(["a"], "random_group", "a") == (["a"], ["a"])


def test_sources_elsewhere_need_copies(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.\./<source>/images.*--copy-images"):
        combine(CombineConfig(sources(case), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_two_subjects_are_refused_unless_named(case: Case) -> None:
    mixed = sources(case, "074_A_x", "toy_still")
    with pytest.raises(InputError, match="different subjects"):
        combine(CombineConfig(mixed, case[2] / "UNION2_mixed"))
    summary = combine(CombineConfig(mixed, case[2] / "UNION2_mixed", "last", subject="me"))
    assert summary.counts["train"] == 4


def edited(case: Case, name: str, change: object) -> Path:
    """A copy of a source whose JSON files are changed."""
    folder = case[2] / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(case[2] / "074_B_x", folder)
    for path in folder.glob("transforms*.json"):
        data = json.loads(path.read_text())
        change(data)  # type: ignore[operator]
        path.write_text(json.dumps(data))
    return folder


def test_cameras_of_one_name_get_one_index(case: Case) -> None:
    """The second source lacks the first camera, so that it counts the others from 0."""

    def without_first(data: dict) -> None:
        data["frames"] = [f | {"camera_index": f["camera_index"] - 1} for f in data["frames"] if f["camera_index"]]

    other = edited(case, "074_less", without_first)
    summary = combine(CombineConfig((case[2] / "074_A_x", other), case[2] / "UNION2_less", "last"))
    assert check_pixels(case[2] / "UNION2_less", case) == 12  # rig_cameras()[index] is the right one
    assert any("anew" in text for text in summary.warnings)


def test_other_intrinsics_and_shapes_are_said(case: Case) -> None:
    def other_focal(data: dict) -> None:
        for frame in data["frames"]:
            frame["fl_x"] *= 1.1

    other = edited(case, "074_focal", other_focal)
    with np.load(other / "canonical_flame_param.npz") as held:
        arrays = dict(held)
    np.savez(other / "canonical_flame_param.npz", **arrays | {"shape": arrays["shape"] + 0.5})
    summary = combine(CombineConfig((case[2] / "074_A_x", other), case[2] / "UNION2_focal", "last"))
    assert any("focal length" in text for text in summary.warnings)
    assert any("differs from that of 074_A_x by 0.5 standard" in text for text in summary.warnings)


def test_another_head_model_is_refused(case: Case) -> None:
    other = edited(case, "074_head", lambda data: data["provenance"]["head_model"].update(sha256="other"))
    with pytest.raises(InputError, match="another head model"):
        combine(CombineConfig((case[2] / "074_A_x", other), case[2] / "UNION2_head"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data.update(frames=[{}]), "no timestep_index"),
        (lambda data: data["frames"][0].update(file_path="../../secret.png") if data["frames"] else None, "not a file"),
        (lambda data: [f.update(file_path=f["file_path"] + ".no") for f in data["frames"]], "missing"),
        (lambda data: data.update(frames=3), "no list of frames"),
    ],
)
def test_damaged_sources_are_input_errors(case: Case, change: object, text: str) -> None:
    other = edited(case, "074_damaged", change)
    with pytest.raises(InputError, match=text):
        combine(CombineConfig((other,), case[2] / "UNION_damaged"))
    assert not (case[2] / "UNION_damaged").exists()


def test_places_that_make_no_sense(case: Case, tmp_path: Path) -> None:
    one = case[2] / "074_A_x"
    for folders, target, text in (
        ((one, one), case[2] / "UNION_no", "given twice"),
        ((one,), one, "is what this command reads"),
        ((tmp_path / "074_none",), case[2] / "UNION_no", "no such folder"),
        ((), case[2] / "UNION_no", "names no folder"),
    ):
        with pytest.raises(InputError, match=text):
            combine(CombineConfig(folders, target))
    assert (one / "images").is_dir() and not (case[2] / "UNION_no").exists()


def test_a_union_is_reusable_and_replaces_itself(case: Case) -> None:
    config = CombineConfig(sources(case), case[2] / "UNION_again", "last", copy_images=True)
    combine(config)
    assert compare(read_manifest(config.tgt_folder), plan(config), not_deciding(CombineConfig)) is None
    combine(replace(config, copy_images=False))
    assert not (config.tgt_folder / "images").exists()


def test_blendshapes_of_eyelids_come_along(case: Case, tmp_path: Path) -> None:
    for name in SOURCES:
        shutil.copytree(case[2] / name, tmp_path / name)
    np.savez(tmp_path / "074_B_x" / EYELIDS_NAME, left=np.ones((3, 3)), right=np.zeros((3, 3)))
    combine(CombineConfig(src_folders=tuple(tmp_path / name for name in SOURCES), tgt_folder=tmp_path / "with"))
    with np.load(tmp_path / "with" / EYELIDS_NAME) as file:
        assert file["left"].all() and not file["right"].any()
    assert not (case[2] / "074_A_x" / EYELIDS_NAME).exists()
