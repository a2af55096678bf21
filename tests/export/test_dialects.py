"""Dialects of FLAME parameters: whatever is converted, the same vertices come out."""

import os
import pickle
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from flame_fitting.convert import Conversion, ConvertConfig, convert
from flame_fitting.errors import InputError
from flame_fitting.export.dialects.parameters import FlameParams, _identity
from flame_fitting.export.dialects.registry import DIALECTS, read_parameters, recognise
from flame_fitting.export.dialects.rotations import matrix_from_axis_angle
from flame_fitting.export.dialects.vocabulary import DialectName
from flame_fitting.head.model import HeadData, HeadModel
from tests.export import flame_reference as reference

T = 3
VHAP_POSES = ("rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose")
SMPLX_POSES = ("global_orient", "transl", "neck_pose", "jaw_pose", "leye_pose", "reye_pose")
METRES = 2e-6
"""float32 files of heads that lie up to half a metre from the origin."""


@pytest.fixture(scope="module")
def data() -> HeadData:
    return reference.full_size_toy()


@pytest.fixture(scope="module")
def head(data: HeadData) -> HeadModel:
    return HeadModel(data, torch.float64)


@pytest.fixture(scope="module")
def head_file(data: HeadData, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(reference.write_head(data, tmp_path_factory.mktemp("head") / "toy.npz"))


def random_poses(seed: int, count: int = T) -> dict[str, np.ndarray]:
    """Coefficients and joints that every dialect has; the root is turned far."""
    rng = np.random.default_rng(seed)
    return {
        "shape": rng.normal(size=300),
        "expr": rng.normal(size=(count, 100)),
        "jaw": rng.normal(size=(count, 3)) * 0.2,
        "eyes": rng.normal(size=(count, 6)) * 0.2,
        "neck": rng.normal(size=(count, 3)) * 0.3,
        "turn": rng.normal(size=(count, 3)),
        "shift": rng.normal(size=(count, 3)) * 0.3,
    }


def vhap_file(path: Path, seed: int = 0, **changed: Any) -> dict[str, np.ndarray]:
    """A sequence as VHAP writes it."""
    p = random_poses(seed)
    arrays = {
        "shape": p["shape"],
        "expr": p["expr"],
        "rotation": p["turn"],
        "translation": p["shift"],
        "neck_pose": p["neck"],
        "jaw_pose": p["jaw"],
        "eyes_pose": p["eyes"],
    }
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()} | changed
    np.savez(path, **arrays)
    return arrays


def expected(data: HeadData, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(T, V, 3) by the reference."""
    return np.stack([reference.vhap_vertices(data, arrays, t) for t in range(len(arrays["expr"]))])


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def as_rows(vectors: np.ndarray) -> np.ndarray:
    """(n, 3) axis-angles as the first two rows of their matrices (n, 6)."""
    return Rotation.from_rotvec(vectors).as_matrix()[:, :2].reshape(-1, 6)


def frame_content(seed: int, with_pose: bool) -> dict[str, Any]:
    """One .frame of Pixel3DMM (with R, t, neck) or of metrical-tracker."""
    p = random_poses(seed, 1)
    flame: dict[str, Any] = {
        "exp": p["expr"],
        "shape": p["shape"][None],
        "eyes": as_rows(p["eyes"].reshape(2, 3)).reshape(1, 12),
        "eyelids": np.zeros((1, 2)),
        "jaw": as_rows(p["jaw"]),
    }
    turn = Rotation.from_rotvec(p["turn"]).as_matrix()
    content: dict[str, Any] = {"flame": flame, "frame_id": "00000", "global_step": 7, "img_size": np.array([512, 512])}
    if with_pose:
        flame |= {"neck": as_rows(p["neck"]), "R": as_rows(p["turn"]), "R_rotation_matrix": turn, "t": p["shift"]}
        content["camera"] = {"fl": np.ones((1, 1)), "R_base_0": np.eye(3)}
    else:
        flame |= {"tex": np.ones((1, 140)), "sh": np.ones((1, 9, 3))}
        content["opencv"] = {"R": turn, "t": p["shift"], "K": np.eye(3)[None]}
    return content


def run(source: Path, output: Path, to: str, **options: Any) -> Conversion:
    return convert(ConvertConfig(input=source, output=output, to=to, **options))  # type: ignore[arg-type]


def test_every_name_has_its_dialect() -> None:
    assert {dialect.name for dialect in DIALECTS} == set(get_args(DialectName))


# From VHAP's words to others', judged by the others' own conventions


def test_to_smplx(data: HeadData, tmp_path: Path) -> None:
    smplx = pytest.importorskip("smplx")
    arrays = vhap_file(tmp_path / "a.npz")
    assert run(tmp_path / "a.npz", tmp_path / "b.npz", "smplx").warnings == []
    folder = smplx_folder(data, tmp_path)
    model = smplx.FLAME(folder, num_betas=300, num_expression_coeffs=100, batch_size=T, dtype=torch.float64)
    given = {name: torch.as_tensor(value).double() for name, value in load(tmp_path / "b.npz").items()}
    with torch.no_grad():
        vertices = model(**given).vertices.numpy()
    assert np.abs(vertices - expected(data, arrays)).max() < METRES


def smplx_folder(data: HeadData, folder: Path) -> str:
    """The toy in the files that smplx asks for."""
    content = {
        "v_template": data.v_template,
        "shapedirs": np.concatenate([data.shapedirs, data.exprdirs], axis=2),
        "posedirs": data.posedirs,
        "J_regressor": data.J_regressor,
        "weights": data.weights,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)]),
        "f": data.faces,
    }
    (folder / "FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(content))
    landmarks = {"lmk_face_idx": np.zeros(51, dtype=np.int64), "lmk_b_coords": np.full((51, 3), 1 / 3)}
    (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(landmarks))
    return str(folder)


def test_to_body_models(data: HeadData, tmp_path: Path) -> None:
    numpy_models = pytest.importorskip("body_models.flame.numpy")
    arrays = vhap_file(tmp_path / "a.npz")
    assert run(tmp_path / "a.npz", tmp_path / "b.npz", "body-models").warnings == []
    smplx_folder(data, tmp_path)
    model = numpy_models.FLAME(model_path=tmp_path / "FLAME_NEUTRAL.pkl")
    given = load(tmp_path / "b.npz")
    vertices = model.forward_vertices(given.pop("head_pose"), **given)
    assert np.abs(vertices - expected(data, arrays)).max() < METRES
    back, _ = read_parameters(tmp_path / "b.npz")
    back.world_rotation = np.full((T, 3), 0.2)
    from flame_fitting.export.dialects import body_models

    body_models.write(back, tmp_path / "c.npz")
    given = load(tmp_path / "c.npz")
    vertices = model.forward_vertices(given.pop("head_pose"), **given)
    assert run(tmp_path / "c.npz", tmp_path / "d.npz", "vhap", head=write(data, tmp_path)).warnings == []
    assert np.abs(expected(data, load(tmp_path / "d.npz")) - vertices).max() < METRES


def assert_only_versions(result: Conversion) -> None:
    """Nothing is lost; the two programs have other versions of FLAME."""
    assert len(result.warnings) == 1 and "flame2020" in result.warnings[0]


def write(data: HeadData, folder: Path) -> str:
    return str(reference.write_head(data, folder / "toy.npz"))


def test_to_nersemble(data: HeadData, head_file: str, tmp_path: Path) -> None:
    arrays = vhap_file(tmp_path / "a.npz", scale=np.array([1.7]))
    assert run(tmp_path / "a.npz", tmp_path / "b.npz", "nersemble", head=head_file).warnings == []
    file = load(tmp_path / "b.npz")
    assert {name: file[name].shape for name in ("shape", "scale", "rotation_matrices", "frames")} == {
        "shape": (1, 300),
        "scale": (1, 1),
        "rotation_matrices": (T, 3, 3),
        "frames": (T,),
    }
    vertices = np.stack([reference.nersemble_vertices(data, file, t) for t in range(T)])
    assert np.abs(vertices - expected(data, arrays)).max() < METRES


def test_to_pixel3dmm(data: HeadData, head_file: str, tmp_path: Path) -> None:
    arrays = vhap_file(tmp_path / "a.npz")
    assert_only_versions(run(tmp_path / "a.npz", tmp_path / "frames", "pixel3dmm", head=head_file))
    for t, vertices in enumerate(expected(data, arrays)):
        flame = torch.load(tmp_path / "frames" / f"{t:05d}.frame", weights_only=False)["flame"]
        assert np.abs(reference.pixel3dmm_vertices(data, flame) - vertices).max() < METRES
        assert np.allclose(flame["R_rotation_matrix"][0], reference.rows_to_matrix(flame["R"][0]), atol=1e-6)


def test_to_metrical_tracker(data: HeadData, head_file: str, tmp_path: Path) -> None:
    arrays = vhap_file(tmp_path / "a.npz", neck_pose=np.zeros((T, 3)))
    assert_only_versions(run(tmp_path / "a.npz", tmp_path / "frames", "metrical-tracker", head=head_file))
    for t, vertices in enumerate(expected(data, arrays)):
        frame = torch.load(tmp_path / "frames" / f"{t:05d}.frame", weights_only=False)
        canonical = reference.frame_vertices(data, frame["flame"])
        in_camera = canonical @ frame["opencv"]["R"][0].T + frame["opencv"]["t"][0]
        assert np.abs(in_camera * [1, -1, -1] - vertices).max() < METRES  # y up, z back


def test_to_flame_head_tracker(data: HeadData, tmp_path: Path) -> None:
    arrays = vhap_file(tmp_path / "a.npz", translation=np.zeros((T, 3)))
    assert_only_versions(run(tmp_path / "a.npz", tmp_path / "frames", "flame-head-tracker"))
    for t, vertices in enumerate(expected(data, arrays)):
        file = load(tmp_path / "frames" / f"{t:05d}.npz")
        assert file["exp"].shape == (1, 100)
        assert np.abs(reference.head_tracker_vertices(data, file) - vertices).max() < METRES


# From others' words to VHAP's: files made here, by the others' conventions


def test_from_smplx(data: HeadData, tmp_path: Path) -> None:
    p = random_poses(1)
    np.savez(
        tmp_path / "a.npz",
        betas=p["shape"][None],
        expression=p["expr"],
        global_orient=p["turn"],
        transl=p["shift"],
        neck_pose=p["neck"],
        jaw_pose=p["jaw"],
        leye_pose=p["eyes"][:, :3],
        reye_pose=p["eyes"][:, 3:],
    )
    result = run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap")
    assert (result.source, result.timesteps, result.warnings) == ("smplx", T, [])
    wanted = [reference.flame(data, p["shape"], p["expr"][t], joints(p, t)) + p["shift"][t] for t in range(T)]
    assert np.abs(expected(data, load(tmp_path / "b.npz")) - wanted).max() < METRES


def joints(p: dict[str, np.ndarray], t: int) -> np.ndarray:
    return np.stack([p["turn"][t], p["neck"][t], p["jaw"][t], *p["eyes"][t].reshape(2, 3)])


def test_from_nersemble(data: HeadData, head_file: str, tmp_path: Path) -> None:
    p = random_poses(2)
    file = {
        "shape": p["shape"][None],
        "expression": p["expr"],
        "rotation": p["turn"],
        "rotation_matrices": Rotation.from_euler("XYZ", p["turn"]).as_matrix(),
        "translation": p["shift"],
        "jaw": p["jaw"],
        "frames": np.array([3, 6, 9]),
        "scale": np.array([[1.3]]),
        "neck": p["neck"],
        "eyes": p["eyes"],
    }
    np.savez(tmp_path / "a.npz", **file)
    result = run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap", head=head_file)
    assert result.source == "nersemble"
    assert len(result.warnings) == 1 and "scale 1.3" in result.warnings[0]
    written = load(tmp_path / "b.npz")
    wanted = [reference.nersemble_vertices(data, file, t) for t in range(T)]
    assert np.abs(expected(data, written) - wanted).max() < METRES
    assert written["timestep_id"].tolist() == ["3", "6", "9"]


def test_from_pixel3dmm(data: HeadData, head_file: str, tmp_path: Path) -> None:
    contents = [frame_content(seed, with_pose=True) for seed in (3, 4)]
    for t, content in enumerate(contents):
        content["flame"]["shape"] = contents[0]["flame"]["shape"]
        torch.save(content, tmp_path / f"{t:05d}.frame")
    result = run(tmp_path, tmp_path / "b.npz", "vhap", head=head_file)
    assert result.source == "pixel3dmm"
    wanted = [reference.pixel3dmm_vertices(data, content["flame"]) for content in contents]
    assert np.abs(expected(data, load(tmp_path / "b.npz")) - wanted).max() < METRES
    assert any("camera.fl" in text for text in result.warnings)


def test_from_metrical_tracker(data: HeadData, head_file: str, tmp_path: Path) -> None:
    content = frame_content(5, with_pose=False)
    torch.save(content, tmp_path / "00000.frame")
    result = run(tmp_path / "00000.frame", tmp_path / "still.npz", "vhap")
    assert result.source == "metrical-tracker"
    assert any("--camera-space" in text for text in result.warnings)
    canonical = reference.frame_vertices(data, content["flame"])
    assert np.abs(expected(data, load(tmp_path / "still.npz"))[0] - canonical).max() < METRES
    run(tmp_path / "00000.frame", tmp_path / "moved.npz", "vhap", head=head_file, camera_space=True)
    in_camera = canonical @ content["opencv"]["R"][0].T + content["opencv"]["t"]
    assert np.abs(expected(data, load(tmp_path / "moved.npz"))[0] - in_camera * [1, -1, -1]).max() < METRES


def test_from_flame_head_tracker(data: HeadData, tmp_path: Path) -> None:
    p = random_poses(6, 1)
    file: dict[str, Any] = {
        "shape": p["shape"][None],
        "exp": p["expr"],
        "head_pose": p["turn"],
        "jaw_pose": p["jaw"],
        "neck_pose": p["neck"],
        "eye_pose": p["eyes"],
        "cam": np.zeros((1, 6)),
    }
    np.savez(tmp_path / "a.npz", lmks_ears=np.array(None), **file)  # an object that must not be unpickled
    result = run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap")
    assert result.source == "flame-head-tracker"
    assert "vhap has no place for cam: left out" in result.warnings
    assert (
        np.abs(expected(data, load(tmp_path / "b.npz"))[0] - reference.head_tracker_vertices(data, file)).max() < METRES
    )
    old = {"shape": p["shape"][None, :100], "exp": p["expr"][:, :50], "pose": np.hstack([p["turn"], p["jaw"]])}
    np.savez(tmp_path / "old.npz", **old)
    params, _ = read_parameters(tmp_path / "old.npz")
    assert np.allclose(params.rotation, p["turn"]) and np.allclose(params.jaw_pose, p["jaw"])


# There and back


def posed_vertices(params: FlameParams, head: HeadModel) -> np.ndarray:
    """(T, V, 3) in the parameters' world, metres times `scale`."""
    poses = ("rotation", "neck_pose", "jaw_pose", "eyes_pose")
    tensors = {name: torch.as_tensor(getattr(params, name)).to(head.v_template) for name in poses}
    with torch.no_grad():
        posed = head(**_identity(params, head), **tensors).vertices.double().numpy()
    turned = np.einsum("tab,tvb->tva", matrix_from_axis_angle(params.world_rotation), posed)
    return params.scale * (turned + params.translation[:, None])


@pytest.mark.parametrize("name", get_args(DialectName))
def test_round_trip(name: str, data: HeadData, head: HeadModel, head_file: str, tmp_path: Path) -> None:
    changed = {}
    if name == "metrical-tracker":
        changed["neck_pose"] = np.zeros((T, 3))
    if name == "flame-head-tracker":
        changed["translation"] = np.zeros((T, 3))
    arrays = vhap_file(tmp_path / "a.npz", seed=8, **changed)
    there = tmp_path / ("there" if name in ("metrical-tracker", "pixel3dmm", "flame-head-tracker") else "there.npz")
    run(tmp_path / "a.npz", there, name, head=head_file)
    params, dialect = read_parameters(there)
    assert dialect.name == name
    if name != "metrical-tracker":
        assert np.abs(posed_vertices(params, head) - expected(data, arrays)).max() < METRES
    run(there, tmp_path / "back.npz", "vhap", head=head_file, camera_space=name == "metrical-tracker")
    assert np.abs(expected(data, load(tmp_path / "back.npz")) - expected(data, arrays)).max() < 2 * METRES


def test_camera_of_metrical_tracker_survives_its_own_round_trip(tmp_path: Path) -> None:
    content = frame_content(9, with_pose=False)
    torch.save(content, tmp_path / "00000.frame")
    run(tmp_path / "00000.frame", tmp_path / "b.frame", "metrical-tracker")
    again = torch.load(tmp_path / "b.frame", weights_only=False)
    for part, names in (("flame", content["flame"]), ("opencv", content["opencv"])):
        for name in names:
            assert np.allclose(again[part][name], content[part][name], atol=1e-6), name


# A folder as GaussianAvatars reads it, and this program's own fits


def test_folder_for_gaussian_avatars(data: HeadData, tmp_path: Path) -> None:
    offset = np.random.default_rng(0).normal(size=(1, len(data.v_template), 3)).astype(np.float32) * 1e-3
    arrays = vhap_file(tmp_path / "a.npz", static_offset=offset, tex_extra=np.zeros((3, 4, 4)))
    run(tmp_path / "a.npz", tmp_path / "out", "vhap")
    files = sorted((tmp_path / "out" / "flame_param").iterdir())
    assert [file.name for file in files] == [f"{t:05d}.npz" for t in range(T)]
    one = load(files[1])
    assert {name: one[name].shape for name in ("shape", "expr", "eyes_pose", "static_offset")} == {
        "shape": (300,),
        "expr": (1, 100),
        "eyes_pose": (1, 6),
        "static_offset": offset.shape,
    }
    assert np.abs(expected(data, one)[0] - expected(data, arrays)[1]).max() < METRES
    canonical = load(tmp_path / "out" / "canonical_flame_param.npz")
    assert canonical["jaw_pose"][0, 0] == np.float32(0.3) and not canonical["rotation"].any()
    assert np.array_equal(canonical["shape"], arrays["shape"])
    assert (tmp_path / "out" / "manifest.json").is_file()
    params, _ = read_parameters(tmp_path / "out")
    assert params.count == T and params.static_offset is not None
    run(tmp_path / "out", tmp_path / "joined.npz", "vhap")
    assert np.abs(expected(data, load(tmp_path / "joined.npz")) - expected(data, arrays)).max() < METRES


def test_own_fit_is_read_and_what_is_lost_is_named(data: HeadData, tmp_path: Path) -> None:
    vhap_file(
        tmp_path / "tracked_flame_params.npz",
        static_offset=np.full((1, len(data.v_template), 3), 2e-3),
        head_from_world=np.eye(4),
        head_model=np.array(["open", "0" * 64]),
        head_identity=np.array("{}"),
        lights=np.ones((9, 3)),
        timestep_id=np.array(["00000", "00001", "00002"]),
        image_size=np.array([512, 512]),
        n_processed_frames=np.array(3),
        scale_source=np.array("estimated"),
    )
    result = run(tmp_path, tmp_path / "b.npz", "smplx")
    text = "\n".join(result.warnings)
    assert "static_offset (up to 3.46 mm)" in text
    assert "head_from_world, lights" in text
    assert "not FLAME's" in text
    assert "timestep_id" not in text and "head_identity" not in text and "image_size" not in text
    kept = run(tmp_path, tmp_path / "c.npz", "vhap")
    assert kept.warnings == []
    assert {"head_from_world", "lights", "head_model", "head_identity", "static_offset"} <= set(
        load(tmp_path / "c.npz")
    )


def test_lost_parameters_are_named(tmp_path: Path) -> None:
    content = frame_content(1, with_pose=True)
    content["flame"]["eyelids"] = np.array([[0.5, 0.2]])
    torch.save(content, tmp_path / "a.frame")
    text = "\n".join(run(tmp_path / "a.frame", tmp_path / "b.npz", "nersemble").warnings)
    assert "eyelids" in text
    vhap_file(tmp_path / "v.npz")
    text = "\n".join(run(tmp_path / "v.npz", tmp_path / "t", "flame-head-tracker").warnings)
    assert "translation (up to" in text


def test_short_vectors_are_padded_and_long_ones_cut(tmp_path: Path) -> None:
    zeros = {name: np.zeros((1, 3)) for name in SMPLX_POSES}
    np.savez(tmp_path / "a.npz", betas=np.ones((1, 10)), expression=np.ones((2, 120)), **zeros)
    result = run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap")
    file = load(tmp_path / "b.npz")
    assert file["shape"].shape == (300,) and file["shape"][:10].all() and not file["shape"][10:].any()
    assert file["expr"].shape == (2, 100)
    assert len(result.warnings) == 1 and "20 more are left out" in result.warnings[0]
    long = np.pad(np.ones((2, 50)), ((0, 0), (0, 70)))
    np.savez(tmp_path / "c.npz", betas=np.ones((1, 10)), expression=long, **zeros)
    assert run(tmp_path / "c.npz", tmp_path / "d.npz", "vhap").warnings == []


def test_one_timestep(tmp_path: Path) -> None:
    arrays = vhap_file(tmp_path / "a.npz")
    run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap", timestep=2)
    assert np.array_equal(load(tmp_path / "b.npz")["expr"], arrays["expr"][2:])
    with pytest.raises(InputError, match="0 to 2"):
        run(tmp_path / "a.npz", tmp_path / "c.npz", "vhap", timestep=3)


# What is refused


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["content", "flame", "array"])
def test_hostile_frame_is_refused_and_not_run(tmp_path: Path, zipped: bool, place: str) -> None:
    mark = tmp_path / "owned"
    content: Any = frame_content(0, with_pose=True)
    if place == "content":
        content = Hostile(mark)
    elif place == "flame":
        content["flame"]["extra"] = Hostile(mark)
    else:
        content["flame"]["exp"] = np.array([Hostile(mark)], dtype=object)
    torch.save(content, tmp_path / "a.frame", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="nothing in it was run"):
        run(tmp_path / "a.frame", tmp_path / "b.npz", "vhap")
    assert not mark.exists()
    assert not (tmp_path / "b.npz").exists()


def test_hostile_npz_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    poses = {name: np.zeros((1, 3)) for name in VHAP_POSES}
    np.savez(tmp_path / "a.npz", shape=np.zeros(300), expr=np.array([Hostile(mark)], dtype=object), **poses)
    with pytest.raises(InputError, match="without a pickle"):
        run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap")
    assert not mark.exists()


def test_tensors_in_frames_of_both_torch_formats(tmp_path: Path) -> None:
    content = frame_content(2, with_pose=True)
    content["flame"] = {name: torch.as_tensor(value) for name, value in content["flame"].items()}
    content["flame"]["exp"] = content["flame"]["exp"].float().T.contiguous().T  # strides of its own
    for zipped in (True, False):
        torch.save(content, tmp_path / "a.frame", _use_new_zipfile_serialization=zipped)
        params, dialect = read_parameters(tmp_path / "a.frame")
        assert dialect.name == "pixel3dmm"
        assert np.allclose(params.expr, content["flame"]["exp"])
        assert np.allclose(params.translation, content["flame"]["t"])


def test_damaged_files_are_input_errors(tmp_path: Path) -> None:
    torch.save(frame_content(0, with_pose=True), tmp_path / "a.frame")
    whole = (tmp_path / "a.frame").read_bytes()
    for size in (0, 10, 100, len(whole) // 2, len(whole) - 10):
        (tmp_path / "b.frame").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_parameters(tmp_path / "b.frame")
    (tmp_path / "c.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"c\.npz"):
        read_parameters(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"nothing": np.zeros(3)}, "no known FLAME parameters"),
        ({"expr": np.full((2, 100), np.nan)}, "not finite"),
        ({"rotation": np.zeros((3, 3))}, "numbers of timesteps"),
        ({"jaw_pose": np.zeros((2, 6))}, "3 are expected"),
        ({"scale": np.zeros(1)}, "positive"),
        ({"static_offset": np.zeros((5, 3))}, "static_offset"),
        ({"shape": np.array(["a"])}, "not an array of numbers"),
    ],
)
def test_wrong_arrays_are_input_errors(tmp_path: Path, arrays: dict[str, Any], text: str) -> None:
    whole: dict[str, Any] = {"shape": np.zeros(300), "expr": np.zeros((2, 100))}
    whole |= {name: np.zeros((2, 3)) for name in VHAP_POSES} | {"eyes_pose": np.zeros((2, 6))}
    np.savez(tmp_path / "a.npz", **(arrays if "nothing" in arrays else whole | arrays))
    with pytest.raises(InputError, match=text):
        run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap")


def test_head_is_asked_for_only_where_pivots_differ(
    head_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vhap_file(tmp_path / "a.npz")
    with pytest.raises(InputError, match="--head PATH"):
        run(tmp_path / "a.npz", tmp_path / "b.npz", "nersemble")
    vhap_file(tmp_path / "still.npz", rotation=np.zeros((T, 3)))
    run(tmp_path / "still.npz", tmp_path / "c.npz", "nersemble")
    vhap_file(tmp_path / "other.npz", head_model=np.array(["flame2023", "0" * 64]))
    with pytest.raises(InputError, match="another file of the head model"):
        run(tmp_path / "other.npz", tmp_path / "d.npz", "nersemble", head=head_file)


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    vhap_file(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"end in \.frame"):
        run(tmp_path / "a.npz", tmp_path / "b.npz", "pixel3dmm")
    with pytest.raises(InputError, match="--timestep"):
        run(tmp_path / "a.npz", tmp_path / "b.npz", "flame-head-tracker", timestep=None)
    with pytest.raises(InputError, match=r"ending in \.npz"):
        run(tmp_path / "a.npz", tmp_path / "folder", "smplx")
    (tmp_path / "there.npz").write_bytes(b"mine")
    with pytest.raises(InputError, match="--force"):
        run(tmp_path / "a.npz", tmp_path / "there.npz", "smplx")
    assert (tmp_path / "there.npz").read_bytes() == b"mine"
    run(tmp_path / "a.npz", tmp_path / "there.npz", "smplx", force=True)
    assert recognise(tmp_path / "there.npz").name == "smplx"


def test_disagreeing_rotations_of_a_frame_are_refused(tmp_path: Path) -> None:
    content = frame_content(0, with_pose=True)
    content["flame"]["R_rotation_matrix"] = np.swapaxes(content["flame"]["R_rotation_matrix"], 1, 2)
    torch.save(content, tmp_path / "a.frame")
    with pytest.raises(InputError, match="different rotations"):
        read_parameters(tmp_path / "a.frame")


# Whose file it is


def foreign_tracker(path: Path) -> None:
    """Another tracker's file: it shares two names with VHAP, its pose has other ones."""
    rng = np.random.default_rng(0)
    np.savez(
        path,
        **{name: np.ones((1, 1), np.float32) for name in ("fx", "fy", "cx", "cy")},
        extr=np.eye(4)[None],
        shape=rng.normal(size=150),
        expr=rng.normal(size=(4, 65)),
        rot=rng.normal(size=(4, 3)),
        tra=rng.normal(size=(4, 3)),
        eye_rot=rng.normal(size=(4, 3)),
        fps=np.array(25),
    )


def test_another_tracker_is_not_taken_for_vhap(tmp_path: Path) -> None:
    foreign_tracker(tmp_path / "a.npz")
    with pytest.raises(InputError) as error:
        run(tmp_path / "a.npz", tmp_path / "b.npz", "smplx")
    for name in ("eye_rot", "rot", "tra", "extr", "nearest is vhap", "neck_pose", "--from"):
        assert name in str(error.value)
    assert not (tmp_path / "b.npz").exists()
    result = convert(ConvertConfig(tmp_path / "a.npz", tmp_path / "b.npz", "smplx", source="vhap"))
    said = "\n".join(result.warnings)
    assert "lacks eyes_pose, jaw_pose, neck_pose, rotation, translation of vhap: taken as zero" in said
    assert "no place for cx, cy, extr, eye_rot, fps, fx, fy, rot, tra: left out" in said


@pytest.mark.parametrize("name", get_args(DialectName))
def test_every_name_that_a_dialect_needs_is_needed(name: str, head_file: str, tmp_path: Path) -> None:
    """Its own file is recognised; without any one of these names it is nobody's."""
    dialect = next(d for d in DIALECTS if d.name == name)
    arrays = vhap_file(tmp_path / "a.npz", neck_pose=np.zeros((T, 3)), translation=np.zeros((T, 3)))
    there = tmp_path / ("there" if dialect.frame_per_file else "there.npz")
    run(tmp_path / "a.npz", there, name, head=head_file)
    file = sorted(there.glob(f"*{dialect.suffix}"))[0] if there.is_dir() else there
    assert recognise(file) is dialect and len(arrays["expr"]) == T
    from flame_fitting.export.dialects.registry import _names_in

    names = _names_in(file)
    (needs, *_) = [wanted for wanted in dialect.needs if wanted <= names]
    for missing in sorted(needs):
        others = [d.name for d in DIALECTS if d.suffix == dialect.suffix and d.recognises(names - {missing})]
        assert dialect.lacks(names - {missing}) and name not in others and others == []


def test_double_precision_is_fine(data: HeadData, tmp_path: Path) -> None:
    arrays = vhap_file(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **{name: value.astype(np.float64) for name, value in arrays.items()})
    run(tmp_path / "a.npz", tmp_path / "c.npz", "smplx")
    run(tmp_path / "b.npz", tmp_path / "d.npz", "smplx")
    one, other = load(tmp_path / "c.npz"), load(tmp_path / "d.npz")
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_bodies_of_smplx_are_no_heads(tmp_path: Path) -> None:
    arrays = {name: np.zeros((1, 3)) for name in SMPLX_POSES}
    arrays |= {"betas": np.zeros((1, 10)), "expression": np.zeros((1, 10))}
    np.savez(tmp_path / "head.npz", **arrays)
    assert recognise(tmp_path / "head.npz").name == "smplx"
    np.savez(tmp_path / "body.npz", body_pose=np.zeros((1, 63)), **arrays)
    with pytest.raises(InputError, match="with body_pose"):
        recognise(tmp_path / "body.npz")
    np.savez(tmp_path / "amass.npz", betas=np.zeros(16), poses=np.zeros((5, 165)), trans=np.zeros((5, 3)))
    with pytest.raises(InputError, match="no known FLAME"):
        recognise(tmp_path / "amass.npz")


def test_names_that_a_dialect_does_not_have_are_said(tmp_path: Path) -> None:
    arrays = {name: np.zeros((1, 3)) for name in SMPLX_POSES}
    np.savez(tmp_path / "a.npz", betas=np.zeros((1, 10)), expression=np.zeros((1, 10)), scale=np.ones(1), **arrays)
    assert run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap").warnings == [
        "smplx has no scale: left out, whatever they mean"
    ]
    content = frame_content(0, with_pose=True)
    content["flame"]["t_world"] = np.zeros((1, 3))
    torch.save(content, tmp_path / "a.frame")
    assert any("pixel3dmm has no t_world" in text for text in read_parameters(tmp_path / "a.frame")[0].notes)


def test_a_pose_of_another_width_is_not_cut(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", shape=np.zeros((1, 100)), exp=np.zeros((1, 50)), pose=np.zeros((1, 15)))
    with pytest.raises(InputError, match="head then jaw"):
        read_parameters(tmp_path / "a.npz")


# Offsets in smplx's own place


@pytest.mark.parametrize("teeth", [0, 7])
def test_offsets_reach_smplx_in_its_template(teeth: int, data: HeadData, head_file: str, tmp_path: Path) -> None:
    """Vertices of smplx itself, made with the template of the file."""
    smplx = pytest.importorskip("smplx")
    count = len(data.v_template)
    offset = np.random.default_rng(3).normal(size=(1, count + teeth, 3)) * 3e-3  # teeth stand behind FLAME's vertices
    arrays = vhap_file(tmp_path / "a.npz", static_offset=offset)
    assert run(tmp_path / "a.npz", tmp_path / "b.npz", "smplx", head=head_file).warnings == []
    given = {name: torch.as_tensor(value).double() for name, value in load(tmp_path / "b.npz").items()}
    template = given.pop("v_template")
    folder = smplx_folder(data, tmp_path)
    options: dict[str, Any] = {"num_betas": 300, "num_expression_coeffs": 100, "batch_size": T, "dtype": torch.float64}
    model, plain = smplx.FLAME(folder, v_template=template, **options), smplx.FLAME(folder, **options)
    with torch.no_grad():
        vertices, without = model(**given).vertices.numpy(), plain(**given).vertices.numpy()
    wanted = expected(data, arrays | {"static_offset": offset[:, :count]})
    assert np.abs(vertices - wanted).max() < METRES
    assert np.abs(without - wanted).max() > 1e-3
    # and back: the offsets come out of the template again
    assert run(tmp_path / "b.npz", tmp_path / "c.npz", "vhap", head=head_file).warnings == []
    assert np.abs(load(tmp_path / "c.npz")["static_offset"] - offset[:, :count]).max() < 1e-6
    assert np.abs(expected(data, load(tmp_path / "c.npz")) - wanted).max() < METRES
    # a dialect that turns about the origin needs the joint, which the offsets move
    run(tmp_path / "b.npz", tmp_path / "d.npz", "nersemble", head=head_file)
    from_vhap = tmp_path / "e.npz"
    run(tmp_path / "c.npz", from_vhap, "nersemble", head=head_file)
    assert np.abs(load(tmp_path / "d.npz")["translation"] - load(from_vhap)["translation"]).max() < METRES


def test_offsets_without_a_head_model_are_said(data: HeadData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    vhap_file(tmp_path / "a.npz", static_offset=np.full((1, len(data.v_template), 3), 2e-3))
    result = run(tmp_path / "a.npz", tmp_path / "b.npz", "smplx")
    said = "\n".join(result.warnings)
    assert "--head PATH" in said and "static_offset (up to 3.46 mm)" in said and "v_template" in said
    assert "v_template" not in load(tmp_path / "b.npz")
    vhap_file(tmp_path / "zero.npz", static_offset=np.zeros((1, len(data.v_template), 3)))
    assert run(tmp_path / "zero.npz", tmp_path / "c.npz", "smplx").warnings == []


def test_a_template_of_another_head_is_refused(head_file: str, tmp_path: Path) -> None:
    arrays = {name: np.zeros((1, 3)) for name in SMPLX_POSES}
    arrays |= {"betas": np.zeros((1, 300)), "expression": np.zeros((1, 100)), "v_template": np.zeros((5023, 3))}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match="v_template has 5023"):
        run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap", head=head_file)
    with pytest.raises(InputError, match="--head PATH"):
        run(tmp_path / "a.npz", tmp_path / "b.npz", "vhap")
    vhap_file(tmp_path / "few.npz", static_offset=np.ones((1, 4, 3)))
    with pytest.raises(InputError, match="static_offset has 4"):
        run(tmp_path / "few.npz", tmp_path / "c.npz", "smplx", head=head_file)
