"""Which head model is taken, why, and what identifies it in a result."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame_fitting import assets, cli
from flame_fitting.assets import find_head
from flame_fitting.errors import InputError
from flame_fitting.evaluate import EvaluateConfig
from flame_fitting.files import sha256_of_file
from flame_fitting.fit.result import FitResult, check_head, load_fit, save_parameters
from flame_fitting.fit.sources import _head_of, recorded_head_spec
from flame_fitting.fit_avatar import FitConfig
from flame_fitting.head import loading
from flame_fitting.head.loading import _layout_hash, head_identity, head_inputs, load_head
from flame_fitting.head.model import HeadData
from flame_fitting.manifest import Manifest, input_record
from flame_fitting.render_avatar import RenderConfig
from flame_fitting.run_pipeline import RunConfig
from tests.head.flame_like import write_npz
from tests.head.hostile import hostile
from tests.toy import toy_head


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(assets, "asset_dir", lambda: tmp_path / "asset")
    monkeypatch.setattr(assets, "open_head_path", lambda: tmp_path / "asset" / "open_head" / "open_head.npz")
    monkeypatch.delenv("FLAME_FITTING_SEARCH_PATH")


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_tests_do_not_find_what_a_developer_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(tmp_path / "asset" / "flame", "flame2023.pkl")
    assert find_head().name == "flame2023"
    monkeypatch.setenv("FLAME_FITTING_SEARCH_PATH", "")
    assert find_head().name == "open"


def test_auto_prefers_flame_2023_then_its_open_version_then_2020_then_the_open_head(tmp_path: Path) -> None:
    folder = tmp_path / "asset" / "flame"
    assert find_head().name == "open" and find_head().path == assets.open_head_path()
    assert find_head().why == "auto, no FLAME file was found"
    expected = {"generic_model.pkl": "flame2020", "flame2023_Open.pkl": "flame2023-open", "flame2023.pkl": "flame2023"}
    for file, name in expected.items():
        put(folder, file)
        found = find_head()
        assert (found.name, found.path, found.why) == (name, folder / file, f"auto, {file} in asset/flame")
        assert found.title.startswith("FLAME 20")
    assert find_head("flame2020").path == folder / "generic_model.pkl"
    assert find_head("flame2020").why == "--head flame2020, generic_model.pkl in asset/flame"
    assert find_head("open").name == "open"


def test_order_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = put(tmp_path / "flag", "flame2023.pkl")
    model = put(tmp_path / "model", "flame2023.pkl")
    bundle = put(tmp_path / "bundle" / "flame", "flame2023.pkl")
    shipped = put(tmp_path / "asset" / "flame", "flame2023.pkl")
    own = put(tmp_path / "data" / "flame-fitting", "flame2023.pkl")
    monkeypatch.setenv("FLAME_MODEL_PATH", str(model))
    monkeypatch.setenv("FLAME_FITTING_ASSETS", str(bundle.parent))
    assert find_head("auto", flag).path.parent == flag
    assert "(--flame-dir)" in find_head("auto", flag).why
    for folder, reason in ((model, "FLAME_MODEL_PATH"), (bundle, "FLAME_FITTING_ASSETS"), (shipped, "asset/flame")):
        found = find_head()
        assert found.path.parent == folder and reason in found.why
        found.path.unlink()
    assert find_head().path.parent == own
    assert str(own) in find_head().why


def test_a_file_in_the_environment_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "asset" / "flame", "flame2023.pkl")
    mine = put(tmp_path / "mine", "my_head.npz") / "my_head.npz"
    monkeypatch.setenv("FLAME_MODEL_PATH", str(mine))
    assert (find_head().path, find_head().name, find_head().title) == (mine, "my_head", "")
    assert find_head().why == "named by FLAME_MODEL_PATH"
    assert find_head("flame2023").path.name == "flame2023.pkl"
    mine.unlink()
    with pytest.raises(InputError, match=r"my_head\.npz: no such file, but FLAME_MODEL_PATH"):
        find_head()
    assert find_head("open").name == "open"


def test_what_is_not_there_is_said_with_the_place_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"flame2023\.pkl: not in .*FLAME 2023 .*https://flame\.is\.tue\.mpg\.de"):
        find_head("flame2023")
    with pytest.raises(InputError, match=r"flame2024: not a known head model\. Give --head open"):
        find_head("flame2024")
    with pytest.raises(InputError, match=r"none\.pkl: no such head-model file"):
        find_head(str(tmp_path / "none.pkl"))
    with pytest.raises(InputError, match="empty: no such folder"):
        find_head("auto", tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"flame2023\.pkl, .*: not in .*empty"):
        find_head("auto", tmp_path / "empty")
    with pytest.raises(InputError, match=r"masks\.pkl: no such file"):
        find_head("open", None, tmp_path / "masks.pkl")


def test_files_beside_the_model(tmp_path: Path) -> None:
    folder = put(tmp_path / "models", "flame2023.pkl", "FLAME_masks.pkl", "head_template_mesh.obj")
    found = find_head(str(folder / "flame2023.pkl"))
    assert (found.name, found.title) == ("flame2023", "FLAME 2023")
    assert found.masks == folder / "FLAME_masks.pkl" and found.template == folder / "head_template_mesh.obj"
    assert found.texture is None
    other = put(tmp_path / "other", "FLAME_masks.pkl", "FLAME_texture.npz")
    found = find_head(str(folder / "flame2023.pkl"), other, other / "FLAME_masks.pkl")
    assert (found.masks, found.texture) == (other / "FLAME_masks.pkl", other / "FLAME_texture.npz")
    assert find_head(str(put(folder, "flame2023_like.npz") / "flame2023_like.npz")).title == ""


@pytest.mark.parametrize("config", [RenderConfig, FitConfig, RunConfig])
def test_every_stage_takes_auto_and_says_so_first(config: type, tmp_path: Path) -> None:
    made = config(tmp_path / "a", tmp_path / "o")
    assert made.head == "auto"
    assert cli.head_line(made) == "head: open (auto, no FLAME file was found)"
    folder = put(tmp_path / "models", "flame2023_Open.pkl")
    made.flame_dir = folder
    assert cli.head_line(made) == f"head: flame2023-open (auto, flame2023_Open.pkl in {folder} (--flame-dir))"
    made.head = "open"
    assert cli.head_line(made, ["--head", "open"]) == "head: open (--head open)"


def test_a_head_that_is_not_there_ends_a_command_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", str(tmp_path), "--output", str(tmp_path / "o"), "--head", "flame2023"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("flame-fitting: flame2023.pkl: not in ") and "--head open" in said
    assert not (tmp_path / "o").exists()


# FLAME's own topology is needed for teeth and masks: a file of its size, read as if it were the toy head.


@pytest.fixture
def flame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A head without regions that counts as FLAME, whose completion notes what it was asked for."""
    monkeypatch.setattr(loading, "has_flame_topology", lambda data: True)

    def complete(data: HeadData, *, masks, template_obj, texture_npz, add_teeth) -> HeadData:
        note = {"masks": masks, "obj": template_obj, "npz": texture_npz, "teeth": add_teeth}
        uv = np.full((3, 2), 0.5 if template_obj is None else 0.7)
        uv_faces = np.zeros_like(data.faces)
        return replace(data, metadata=note, regions={"face": np.array([0])}, uv=uv, uv_faces=uv_faces)

    monkeypatch.setattr("flame_fitting.head.completion.complete_flame", complete)
    folder = tmp_path / "models"
    return write_npz(folder / "flame2023.npz")


def masks_file(path: Path) -> Path:
    np.savez(path, face=np.array([1, 2]))
    return path


def test_flame_heads_are_completed_with_what_lies_beside_them(flame: Path) -> None:
    assert load_head(str(flame)).metadata == {"masks": None, "obj": None, "npz": None, "teeth": True}
    masks = masks_file(flame.parent / "masks.npz")
    put(flame.parent, "FLAME_texture.npz")
    head = load_head(str(flame), None, masks, add_teeth=False)
    assert head.metadata["npz"] == flame.parent / "FLAME_texture.npz" and not head.metadata["teeth"]
    assert head.metadata["masks"]["face"].tolist() == [1, 2]
    put(flame.parent, "head_template_mesh.obj")
    head = load_head(str(flame))
    assert head.metadata["obj"] == flame.parent / "head_template_mesh.obj" and head.metadata["npz"] is None


def test_identity_tells_teeth_masks_and_uv_apart_and_is_what_the_model_says(flame: Path) -> None:
    bare = head_identity(str(flame))
    assert bare | {"sha256": "", "uv": ""} == {
        "name": "flame2023", "sha256": "", "title": "FLAME 2023", "teeth": "yes", "masks": "none", "uv": ""
    }  # fmt: skip
    assert bare["sha256"] == sha256_of_file(flame)
    seen = [bare, head_identity(str(flame), add_teeth=False)]
    masks = masks_file(flame.parent / "masks.npz")
    seen.append(head_identity(str(flame), None, masks))
    put(flame.parent, "head_template_mesh.obj")
    seen.append(head_identity(str(flame), None, masks))
    assert len({tuple(sorted(one.items())) for one in seen}) == 4
    assert load_head(str(flame), None, masks).identity == seen[-1]
    assert set(head_inputs(str(flame), None, masks)) == {"head", "flame_masks", "flame_template"}


def test_heads_with_regions_of_their_own_stay_as_they_are(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "mine.npz", region_face=np.array([0, 1]))
    head = load_head(str(path))
    assert set(head.identity) == {"name", "sha256"} and set(head.regions) == {"face"}
    assert head_inputs(str(path)) == {"head": path}
    assert head_identity(str(path), add_teeth=False) == head.identity


def result_of(head, folder: Path) -> FitResult:
    """A fit of nothing, saved and loaded."""
    parameters = {
        "rotation": np.zeros((1, 3)), "translation": np.zeros((1, 3)), "neck_pose": np.zeros((1, 3)),
        "jaw_pose": np.zeros((1, 3)), "eyes_pose": np.zeros((1, 6)), "shape": np.zeros(head.n_shape),
        "expr": np.zeros((1, head.n_expr)), "static_offset": np.zeros((1, head.n_vertices, 3)),
    }  # fmt: skip
    made = FitResult(
        head.name, head.file_hash, parameters, np.eye(4), (8, 8), ["00000"], head_identity=dict(head.identity)
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_parameters(folder / "tracked_flame_params.npz", made)
    return load_fit(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teeth": "no"}, "with teeth: yes, but teeth: no is loaded now"),
        ({"masks": "beef"}, "with masks: none, but masks: beef is loaded now.*--flame-masks"),
        ({"uv": "beef"}, "with uv: .*, but uv: beef is loaded now.*head_template_mesh"),
    ],
)
def test_a_result_is_not_loaded_onto_another_choice(change: dict, message: str, flame: Path, tmp_path: Path) -> None:
    head = load_head(str(flame))
    result = result_of(head, tmp_path / "fit")
    assert result.head_identity == head.identity
    check_head(result, head)
    head.identity |= change
    with pytest.raises(InputError, match=message):
        check_head(result, head)


def test_a_result_is_not_loaded_onto_another_model(flame: Path, tmp_path: Path) -> None:
    result = result_of(load_head(str(flame)), tmp_path / "fit")
    with pytest.raises(InputError, match="with the head model flame2023, but toy is loaded now"):
        check_head(result, toy_head())
    result.parameters["static_offset"] = np.zeros((1, 762, 3))
    with pytest.raises(InputError, match="has 762 vertices, the head model flame2023 has 642"):
        check_head(result, load_head(str(flame)))


def test_a_fit_is_opened_with_the_head_that_it_was_made_with(flame: Path, tmp_path: Path) -> None:
    masks = masks_file(flame.parent / "masks.npz")
    chosen = (str(flame), None, masks)
    result = result_of(load_head(*chosen, add_teeth=False), tmp_path / "fit")
    inputs = {role: input_record(path, tmp_path / "fit") for role, path in head_inputs(*chosen).items()}
    manifest = Manifest(stage="fit", head=head_identity(*chosen, add_teeth=False), inputs=inputs)
    manifest.write(tmp_path / "fit")
    assert recorded_head_spec(tmp_path / "fit", "flame2023") == str(flame)
    head = _head_of(result, tmp_path / "fit", None, None, None)
    assert head.identity == result.head_identity
    check_head(result, head)
    # what comes to lie beside the model later does not count
    put(flame.parent, "FLAME_masks.pkl", "head_template_mesh.obj")
    assert _head_of(result, tmp_path / "fit", None, None, None).identity == result.head_identity
    masks.rename(tmp_path / "masks.npz")
    with pytest.raises(InputError, match=r"masks\.npz: the fit .* was made with it, and it is not there"):
        _head_of(result, tmp_path / "fit", None, None, None)
    assert _head_of(result, tmp_path / "fit", None, None, tmp_path / "masks.npz").identity == result.head_identity
    (tmp_path / "masks.npz").rename(masks)
    # the file is gone, another of the same name is found
    flame.unlink()
    write_npz(tmp_path / "asset" / "flame" / "flame2023.npz", v_template=toy_head().v_template.numpy() * 1.1)
    head = _head_of(result, tmp_path / "fit", None, None, None)
    with pytest.raises(InputError, match="another file of the head model flame2023"):
        check_head(result, head)
    assert cli.head_line(EvaluateConfig(tmp_path / "fit")) == f"head: flame2023 (recorded in {tmp_path / 'fit'})"


def test_a_hostile_head_ends_a_command_with_2_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = put(tmp_path / "models", "a.glb")
    path, mark = folder / "flame2023.pkl", tmp_path / "it_ran"
    path.write_bytes(hostile(mark)["posix.system, protocol 0"])
    put(tmp_path / "asset" / "mediapipe", "face_landmarker_v2.task")
    code = cli.main(["render", str(folder / "a.glb"), "--output", str(tmp_path / "o"), "--flame-dir", str(folder)])
    said = capsys.readouterr().err.splitlines()
    assert code == 2
    assert said[0] == f"head: flame2023 (auto, flame2023.pkl in {folder} (--flame-dir))"
    assert said[-1].startswith(f"flame-fitting: {path}: refused, nothing in it was run: it names 'posix.system'")
    assert not mark.exists() and not (tmp_path / "o").exists()


def test_a_layout_is_known_by_its_grid_and_not_by_its_last_bits() -> None:
    faces = np.array([[0, 1, 2]])
    uv = np.array([[0.0, 0.25], [0.5, 0.75], [0.125, 1.0]])
    same = uv.astype(np.float32) + np.float32(1e-7)
    same[0, 0] = -0.0
    known = _layout_hash(uv, faces)
    assert _layout_hash(same, faces) == known
    assert _layout_hash(uv + 2**-16, faces) != known and _layout_hash(uv, faces[:, ::-1]) != known
