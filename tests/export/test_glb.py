"""A GLB is the head model: in the fit, in other poses and over time, by an evaluator of its own."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.errors import InputError
from flame_fitting.export.glb import FIT, SHOW, VERTEX, Skin, glb_of
from flame_fitting.export.head_rig import OPEN, checked_count, expression_names, rig_of, uncorrected
from flame_fitting.export.showing import showing
from flame_fitting.fit.result import FitResult
from flame_fitting.head.actions import actions_of
from flame_fitting.head.apertures import LID_COLUMNS, apertures_of
from flame_fitting.head.eyelids import with_eyelids
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.render.shading import vertex_normals
from tests.export.glb_evaluator import EvaluatedGlb
from tests.synthetic import known_fit, similarity
from tests.toy import toy_head, toy_head_data

JAW = 0.25


def moving_fit(head: HeadModel, steps: int, seed: int = 0) -> FitResult:
    """Every parameter set, another one at each timestep."""
    rng = np.random.default_rng(seed)
    fit = known_fit(head, similarity(), seed)
    sizes = {"rotation": 3, "translation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6}
    own = {key: 0.15 * rng.normal(size=(steps, size)) for key, size in sizes.items()}
    own |= {
        "expr": rng.normal(size=(steps, head.n_expr)),
        "static_offset": 1e-3 * rng.normal(size=(1, head.n_vertices, 3)),
    }
    return replace(fit, parameters=fit.parameters | own, timestep_id=[f"{k:05d}" for k in range(steps)])


def written(
    fit: FitResult, head: HeadModel, path: Path, n_expr: int | None = None, rate: float | None = None
) -> EvaluatedGlb:
    path.write_bytes(glb_of(fit, head, rig_of(fit, head, n_expr), Skin(fit.texture), rate))
    return EvaluatedGlb(path)


def millimetres(glb: EvaluatedGlb, fit: FitResult, truth: np.ndarray) -> float:
    """Largest distance to vertices in the world, in head space."""
    apart = glb.vertices() - truth[glb.attribute(VERTEX)[:, 0]]
    return float(np.linalg.norm(apart, axis=1).max() * fit.mm_per_unit)


def posed(fit: FitResult, head: HeadModel, **changes: np.ndarray) -> np.ndarray:
    """The neutral head with some parameters, in the world."""
    rest = {key: np.zeros_like(value[:1]) for key, value in fit.parameters.items() if key != "shape"}
    rest |= {key: fit.parameters[key] for key in ("shape", "static_offset")} | changes
    return replace(fit, parameters=rest, timestep_id=["0"]).vertices_world(head)[0]


@pytest.fixture(scope="module")
def open_head() -> HeadModel:
    return load_head("open")


def test_as_it_stands_it_is_the_fit(tmp_path: Path) -> None:
    head = toy_head()
    fit = moving_fit(head, 1)
    glb = written(fit, head, tmp_path / "a.glb")
    assert millimetres(glb, fit, fit.vertices_world(head)[0]) < 1e-3
    assert "fit_corrective" in glb.targets and [each.name for each in glb.gltf.animations] == [SHOW]
    glb.to_rest()
    assert millimetres(glb, fit, posed(fit, head)) < 1e-3


def test_fewer_expressions_leave_the_fit_as_it_is(tmp_path: Path) -> None:
    head = toy_head()
    fit = moving_fit(head, 1)
    glb = written(fit, head, tmp_path / "a.glb", n_expr=1)
    assert [name for name in glb.targets if name.startswith("expr_")] == ["expr_000"]
    assert millimetres(glb, fit, fit.vertices_world(head)[0]) < 1e-3


@pytest.mark.parametrize("kind", ["open", "toy"])
def test_a_jaw_that_opens_is_the_head_model(kind: str, open_head: HeadModel, tmp_path: Path) -> None:
    head = open_head if kind == "open" else toy_head()
    fit = moving_fit(head, 1)
    glb = written(fit, head, tmp_path / "a.glb")
    for angle in (JAW, 0.5 * JAW):
        glb.to_rest()
        glb.turn("jaw", [angle, 0, 0])
        truth = posed(fit, head, jaw_pose=np.array([[angle, 0, 0]]))
        without = millimetres(glb, fit, truth)
        glb.weights[glb.targets.index("jaw_corrective")] = np.sin(angle) / np.sin(JAW)
        assert millimetres(glb, fit, truth) < min(0.3, 0.2 * without)
    glb.to_rest()
    glb.weights[glb.targets.index("jawOpen")] = 1
    assert millimetres(glb, fit, posed(fit, head, jaw_pose=np.array([[OPEN, 0, 0]]))) < 0.01


def test_facial_actions_have_arkits_names(open_head: HeadModel, tmp_path: Path) -> None:
    actions = actions_of(open_head)
    assert actions is not None
    fit = moving_fit(open_head, 1)
    glb = written(fit, open_head, tmp_path / "a.glb", n_expr=5)
    assert {*actions.names, "jawOpen"} <= set(glb.targets)
    amounts = {"eyeBlinkLeft": 0.6, "mouthSmileRight": 0.8}
    glb.to_rest()
    for name, amount in amounts.items():
        glb.weights[glb.targets.index(name)] = amount
    assert millimetres(glb, fit, posed(fit, open_head, expr=actions.expression(amounts)[None])) < 0.02


def test_eyelids_are_targets_of_heads_that_have_them(test_data: Path, tmp_path: Path) -> None:
    head = with_eyelids(load_head(str(test_data / "standin" / "flame2023_standin.pkl")))
    fit = moving_fit(head, 1)
    fit.parameters["eyelids"] = np.array([[0.3, 0.9]])
    glb = written(fit, head, tmp_path / "a.glb", n_expr=3)
    assert millimetres(glb, fit, fit.vertices_world(head)[0]) < 0.02
    glb.to_rest()
    glb.weights[glb.targets.index("eyeBlinkLeft")] = 1
    assert millimetres(glb, fit, posed(fit, head, eyelids=np.array([[1.0, 0]]))) < 0.02


def test_motion_is_an_animation(tmp_path: Path) -> None:
    head = toy_head()
    fit = moving_fit(head, 5)
    fit.parameters["dynamic_offset"] = 1e-3 * np.random.default_rng(1).normal(size=(5, head.n_vertices, 3))
    glb = written(fit, head, tmp_path / "a.glb", rate=25.0)
    truth = fit.vertices_world(head)
    for row in range(5):
        glb.to_time(row / 25, FIT)
        assert millimetres(glb, fit, truth[row]) < 0.05
    ends = glb.gltf.accessors[glb.gltf.animations[0].samplers[0].input].max
    assert ends == [pytest.approx(4 / 25)]


def test_moments_without_an_order_stand_still_each(tmp_path: Path) -> None:
    head = toy_head()
    fit = moving_fit(head, 3)
    (tmp_path / "a.glb").write_bytes(glb_of(fit, head, rig_of(fit, head), Skin(fit.texture), 1.0, ordered=False))
    glb = EvaluatedGlb(tmp_path / "a.glb")
    sampler = glb.gltf.animations[0].samplers[0]
    assert {each.interpolation for each in glb.gltf.animations[0].samplers} == {"STEP"}
    assert glb.accessor(sampler.input)[:, 0].tolist() == [0, 1, 2, 3]
    weights = glb.accessor(sampler.output).reshape(4, -1)
    np.testing.assert_array_equal(weights[3], weights[2])
    assert not np.allclose(weights[2], weights[1])


def test_what_few_targets_leave_is_known() -> None:
    head = toy_head()
    fit = moving_fit(head, 60)
    fit.parameters["dynamic_offset"] = 1e-3 * np.random.default_rng(1).normal(size=(60, head.n_vertices, 3))
    rig = rig_of(fit, head)
    assert len([name for name in rig.names if name.startswith("fit_corrective")]) == 32
    assert 5e-4 < rig.left < 1e-2


def test_quaternions_do_not_jump() -> None:
    head = toy_head()
    fit = moving_fit(head, 40)
    fit.parameters["rotation"] = np.linspace(0, 7, 40)[:, None] * np.array([[0.0, 1, 0]])
    turns = rig_of(fit, head).rotations
    assert (turns[1:] * turns[:-1]).sum(-1).min() > 0.9


def test_seams_have_no_cracks(tmp_path: Path) -> None:
    data = toy_head_data()
    # every triangle of one half has its own place in the texture
    apart = data.faces[: len(data.faces) // 2].reshape(-1)
    assert data.uv is not None
    data.uv_faces = np.concatenate(
        [np.arange(len(apart)).reshape(-1, 3) + len(data.uv), data.faces[len(data.faces) // 2 :]]
    )
    data.uv = np.concatenate([data.uv, 0.5 * data.uv[apart]])
    head = HeadModel(data)
    fit = moving_fit(head, 1)
    glb = written(fit, head, tmp_path / "a.glb")
    vertex = glb.attribute(VERTEX)[:, 0]
    assert len(vertex) > head.n_vertices and set(vertex) == set(range(head.n_vertices))
    faces = glb.accessor(glb.primitive.indices).reshape(-1, 3)
    np.testing.assert_array_equal(vertex[faces], data.faces)
    uv = glb.attribute("TEXCOORD_0")
    np.testing.assert_allclose(uv[faces] * [1, -1] + [0, 1], data.uv[data.uv_faces], atol=1e-6)
    first = np.array([np.flatnonzero(vertex == v)[0] for v in range(head.n_vertices)])[vertex]
    for values in (glb.vertices(), glb.attribute("NORMAL"), glb.target("expr_000")):
        np.testing.assert_array_equal(values, values[first])


def test_normals_follow_their_targets(open_head: HeadModel, tmp_path: Path) -> None:
    fit = moving_fit(open_head, 1)
    glb = written(fit, open_head, tmp_path / "a.glb", n_expr=2)
    number = glb.targets.index("mouthSmileLeft")
    change = glb.accessor(glb.primitive.targets[number]["NORMAL"])
    vertices = torch.zeros(open_head.n_vertices, 3)
    vertex = glb.attribute(VERTEX)[:, 0].astype(int)
    vertices[vertex] = torch.as_tensor(glb.attribute("POSITION") + glb.target("mouthSmileLeft"))
    expected = vertex_normals(vertices[None].double(), open_head.faces)[0].numpy()[vertex]
    np.testing.assert_allclose(glb.attribute("NORMAL") + change, expected, atol=2e-3)
    assert np.abs(change).max() > 0.1


@pytest.mark.parametrize("jaw", [0.05, 0.3])
def test_the_show_moves_jaw_lids_and_gaze(jaw: float, open_head: HeadModel, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    fit = moving_fit(open_head, 1)
    fit.parameters |= {"expr": 0.3 * rng.normal(size=(1, open_head.n_expr)), "jaw_pose": np.array([[jaw, 0.02, 0]])}
    glb = written(fit, open_head, tmp_path / "a.glb", n_expr=3)
    own = {key: value for key, value in fit.parameters.items() if key not in ("shape", "static_offset")}

    def at(seconds: float, **changes: np.ndarray) -> float:
        glb.to_time(seconds, SHOW)
        return millimetres(glb, fit, posed(fit, open_head, **own | changes))

    turned = own["jaw_pose"] * [0, 1, 1] + [JAW if jaw < JAW / 2 else 0, 0, 0]
    assert max(at(0), at(0.2), at(4)) < 0.02
    assert at(0.9, jaw_pose=turned) < 0.3
    for seconds, yaw in ((2.7, 20), (3.3, -20)):  # the subject's left is +x
        assert at(seconds, eyes_pose=own["eyes_pose"] + np.radians(yaw) * np.array([0, 1, 0, 0, 1, 0])) < 0.3
    apertures = apertures_of(open_head)
    assert apertures is not None
    gaps = []
    for seconds in (0.0, 1.9):
        glb.to_time(seconds, SHOW)
        vertex, vertices = glb.attribute(VERTEX)[:, 0], np.zeros((open_head.n_vertices, 3))
        vertices[vertex] = glb.vertices() @ fit.head_from_world[:3, :3].T + fit.head_from_world[:3, 3]
        gaps.append(apertures.gaps(torch.as_tensor(vertices)[None], open_head.faces)[0, : 2 * LID_COLUMNS].abs().mean())
    assert gaps[1] < 0.25 * gaps[0]


def test_what_no_target_corrects_is_measured(open_head: HeadModel) -> None:
    pose = torch.zeros(1, 3)
    pose[0, 1] = JAW
    moved = open_head(jaw_pose=pose).vertices - without_correctives(open_head)(jaw_pose=pose).vertices
    assert float(moved.norm(dim=-1).max()) <= uncorrected(open_head) + 1e-7
    assert uncorrected(without_correctives(open_head)) == 0


def without_correctives(head: HeadModel) -> HeadModel:
    bare = copy.copy(head)
    bare._buffers = {**head._buffers, "posedirs": torch.zeros_like(head.posedirs)}
    return bare


def test_the_show_shuts_lids_by_expression_where_a_head_has_no_more(test_data: Path) -> None:
    head = load_head(str(test_data / "standin" / "flame2023_standin.pkl"))
    fit = moving_fit(head, 1)
    fit.parameters["expr"] *= 0.2
    rig = rig_of(fit, head)
    motion = showing(rig, head)
    apertures = apertures_of(head)
    assert apertures is not None
    count = head.n_expr
    assert rig.names[:count] == expression_names(count)
    morphs = rig.morphs[:count].double().numpy()
    gaps = [
        apertures.gaps(torch.as_tensor(rig.vertices + np.tensordot(weights[:count], morphs, axes=1))[None], head.faces)
        for weights in (motion.weights[0], motion.weights[np.searchsorted(motion.seconds, 1.9)])
    ]
    open_by, shut = (float(each[0, : 2 * LID_COLUMNS].abs().mean()) for each in gaps)
    assert shut < 0.5 * open_by
    np.testing.assert_array_equal(motion.weights[-1], motion.weights[0])
    few = showing(rig_of(fit, head, 2), head)  # too few to shut lids
    assert np.ptp(few.weights[:, :2], axis=0).max() == 0


def test_more_expressions_than_the_head_has_are_refused(open_head: HeadModel) -> None:
    assert checked_count(None, open_head) is None and checked_count(open_head.n_expr, open_head) == open_head.n_expr
    with pytest.raises(InputError, match=f"has {open_head.n_expr} expression components"):
        checked_count(open_head.n_expr + 1, open_head)
