"""A GLB in other programs: the Khronos validator, three.js in Chromium, Blender."""

import io
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.export.glb import Skin, glb_of
from flame_fitting.export.head_rig import JOINTS, rig_of
from flame_fitting.fit.result import FitResult
from flame_fitting.head.actions import actions_of
from flame_fitting.head.eyelids import with_eyelids
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.head.seams import split_at_seams
from flame_fitting.report.drawing import Cameras, draw_in_head_space
from tests.browser.other_programs import blender, npm_modules
from tests.browser.three_page import CHROMIUM, shot, show
from tests.export.test_glb import posed
from tests.synthetic import known_fit, similarity
from tests.toy import toy_head

BROWSER = Path(__file__).parents[1] / "browser"
SIZE = (200, 240)
JAW, YAW = 0.25, 0.35


class Case(NamedTuple):
    head: HeadModel
    fit: FitResult
    path: Path


def case(head: HeadModel, path: Path, steps: int = 1, textured: bool = True, n_expr: int | None = None) -> Case:
    """A head far from its mean that moves, at `steps` timesteps, as a file."""
    rng = np.random.default_rng(5)
    fit = known_fit(head, similarity())
    own = {"expr": 0.5 * rng.normal(size=(steps, head.n_expr)), "shape": 0.7 * rng.normal(size=head.n_shape)}
    for key, size in {"rotation": 3, "translation": 3, "neck_pose": 3, "eyes_pose": 6}.items():
        own[key] = 0.05 * rng.normal(size=(steps, size))
    own["jaw_pose"] = np.abs(0.05 * rng.normal(size=(steps, 1))) * [1, 0, 0]
    if head.n_eyelids:
        own["eyelids"] = rng.uniform(0, 0.2, size=(steps, 2))
    names = [f"{k:05d}" for k in range(steps)]
    texture = (fit.texture if head.texture is None else head.texture) if textured else None
    fit = replace(fit, parameters=fit.parameters | own, timestep_id=names, texture=texture)
    rate = 25.0 if steps > 1 else None
    path.write_bytes(glb_of(fit, head, rig_of(fit, head, n_expr), Skin(texture, has_light=steps > 1), rate))
    return Case(head, fit, path)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(load_head("open"), tmp_path_factory.mktemp("still") / "head.glb", n_expr=4)


def test_the_khronos_validator_finds_nothing(still: Case, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    modules = npm_modules()
    moving = case(load_head("open"), tmp_path / "moving.glb", steps=7)
    toy = case(toy_head(), tmp_path / "toy.glb", textured=False, n_expr=0)
    files = [still.path, moving.path, toy.path]
    for name in ("flame2023_standin.pkl", "flame2020_standin.pkl"):
        file = Path(request.getfixturevalue("test_data")) / "standin" / name
        if file.is_file():
            files.append(case(with_eyelids(load_head(str(file))), tmp_path / f"{name}.glb", steps=2).path)
    command = ["node", str(BROWSER / "validate_gltf.cjs"), str(modules), *map(str, files)]
    reports = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(reports) == len(files)
    for report in reports.values():
        assert report["issues"]["numErrors"] == report["issues"]["numWarnings"] == 0, report["issues"]
        assert report["info"]["hasSkins"] and report["info"]["hasMorphTargets"] and report["info"]["animationCount"]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not there (Debian: apt-get install chromium)")
def test_three_js_moves_bones_and_morphs(still: Case, tmp_path: Path) -> None:
    modules = npm_modules()
    head, fit, path = still
    actions = actions_of(head)
    assert actions is not None
    amounts = {"eyeBlinkLeft": 0.5, "mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}
    own = {key: value for key, value in fit.parameters.items() if key not in ("shape", "static_offset")}
    turn = Rotation.from_rotvec([0, YAW, 0]).as_quat().tolist()
    opened = own | {"jaw_pose": [[JAW, 0, 0]]}
    gazing = own | {"eyes_pose": own["eyes_pose"] + np.radians(20) * np.array([0, 1, 0, 0, 1, 0])}
    poses: dict[str, tuple[dict[str, Any], np.ndarray]] = {
        "fit": ({}, posed(fit, head, **own)),
        "rest": ({"rest": True}, posed(fit, head)),
        # the corrective as docs/outputs.md drives it
        "jaw": ({"rest": True, "openJaw": JAW}, posed(fit, head, jaw_pose=np.array([[JAW, 0, 0]]))),
        "eyes": (
            {"rest": True, "bones": {"left_eye": turn, "right_eye": turn}},
            posed(fit, head, eyes_pose=np.array([[0, YAW, 0, 0, YAW, 0]])),
        ),
        "face": ({"rest": True, "weights": amounts}, posed(fit, head, expr=actions.expression(amounts)[None])),
        "show_jaw": ({"time": 0.9}, posed(fit, head, **{key: np.asarray(value) for key, value in opened.items()})),
        "show_gaze": ({"time": 2.7}, posed(fit, head, **gazing)),
    }
    from_world = fit.head_from_world
    truths = {name: truth @ from_world[:3, :3].T + from_world[:3, 3] for name, (_, truth) in poses.items()}
    middle = truths["fit"][head.regions["face"].cpu().numpy()].mean(0)
    K, camera = intrinsics_from_fov(16, *SIZE), look_at(middle + [0.25, 0.1, 1.0], middle, [0, 1, 0])
    shots = [shot(name, K, camera @ from_world, SIZE, **asked) for name, (asked, _) in poses.items()]
    got = show(path, modules, shots)

    about = json.loads(got["about.json"])
    assert about["bones"] == list(JOINTS) and [name for name, _ in about["clips"]] == ["show"]
    assert about["extras"]["drives"]["jaw_corrective"]["joint"] == "jaw"
    vertex = np.frombuffer(got["vertex.f32"], np.float32).astype(int)
    np.testing.assert_array_equal(vertex, split_at_seams(head).vertex)
    views = Cameras(K[None], camera[None], SIZE)
    differences = {}
    for name, truth in truths.items():
        world = np.frombuffer(got[f"{name}.f32"], np.float32).reshape(-1, 3).astype(float)
        apart = world @ from_world[:3, :3].T + from_world[:3, 3] - truth[vertex]
        assert np.linalg.norm(apart, axis=1).max() < 3e-4, name
        ours = draw_in_head_space(fit, head, truth, [views])[0][0].transpose(1, 2, 0)
        theirs = np.asarray(Image.open(io.BytesIO(got[f"{name}.png"])).convert("RGB")) / 255
        inside, seen = (np.abs(picture - 1).max(-1) > 0.02 for picture in (ours, theirs))
        assert (inside & seen).sum() > 0.99 * (inside | seen).sum(), name
        differences[name] = np.abs(ours - theirs)[inside & seen].mean()
        other = draw_in_head_space(fit, head, truths["rest" if name != "rest" else "jaw"], [views])[0][0].transpose(
            1, 2, 0
        )
        moved = np.abs(ours - other).max(-1) > 0.1
        assert moved.sum() > 50, name
        assert np.abs(ours - theirs)[moved].mean() < 0.3 * np.abs(other - theirs)[moved].mean(), name
    assert max(differences.values()) < 0.02, differences


def test_blender_has_it_on_the_avatar(still: Case, tmp_path: Path) -> None:
    head, fit, path = still
    truth = fit.vertices_world(head)[0]
    avatars = [tmp_path / f"avatar.{kind}" for kind in ("glb", "obj", "ply")]
    for avatar in avatars:
        trimesh.Trimesh(truth, head.faces.cpu().numpy(), process=False).export(avatar)
    blender(BROWSER / "blender_import.py", tmp_path / "out.npz", path, *avatars)
    found = np.load(tmp_path / "out.npz")
    vertex = split_at_seams(head).vertex
    assert len(found["vertices_0"]) == len(vertex) and len(found["vertices_1"]) == head.n_vertices
    x, y, z = found["vertices_3"].T  # of a PLY nothing is turned
    avatars = [found["vertices_1"], found["vertices_2"], np.stack([x, -z, y], axis=1)]
    for avatar in avatars:
        apart = np.linalg.norm(found["vertices_0"] - avatar[vertex], axis=1).max() * fit.mm_per_unit
        assert apart < 0.02
    assert {"jawOpen", "eyeBlinkLeft", "mouthSmileRight", "expr_000"} <= set(found["shape_keys_0"])
    assert set(found["bones_0"]) == set(JOINTS)
    given = {key: torch.as_tensor(value).to(head.v_template) for key, value in fit.parameters.items()}
    at_head = head(**given).joints[0].double().numpy()
    from_head = np.linalg.inv(fit.head_from_world)
    x, y, z = (at_head @ from_head[:3, :3].T + from_head[:3, 3]).T
    joints = dict(zip(JOINTS, np.stack([x, -z, y], axis=1), strict=True))  # Blender's z is up
    # expressions move the model's joints a little, which glTF's do not follow
    most = 1000 * np.linalg.norm(rig_of(fit, head, 0).shifts, axis=-1).max() + 0.02
    for name, at in zip(found["bones_0"], found["heads_0"], strict=True):
        assert np.linalg.norm(at - joints[name]) * fit.mm_per_unit < most, name
    assert most < 5
