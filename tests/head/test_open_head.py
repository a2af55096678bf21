"""The shipped open head: sizes, weights, regions, joints, texture coordinates, and how far lips and lids may err."""

import json

import numpy as np
import pytest
import torch

from flame_fitting import assets
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel

LEFT_RIGHT = ("ear", "eye", "eye_region", "eyeball", "eyelid", "iris", "half", "cheek")
# fmt: off
NAMES = [
    "face", "nose", "lips", "eyes", "forehead", "ears", "left_ear", "right_ear", "neck", "neck_lower", "neck_upper",
    "neck_top", "scalp", "hair", "skin", "boundary", "bottomline", "left_eyeball", "right_eyeball", "eyeballs",
    "left_iris", "right_iris", "irises", "sclerae", "left_eye", "right_eye", "left_eye_region", "right_eye_region",
    "eye_region", "left_eyelid", "right_eyelid", "eyelids", "lip_inside", "lip_inside_ring", "lip_inside_ring_upper",
    "lip_inside_ring_lower", "lips_tight", "lip_outside_ring_upper", "lip_outside_ring_lower", "left_half",
    "right_half", "neck_left_point", "neck_right_point", "front_middle_bottom_point_boundary",
    "back_middle_bottom_point_boundary", "left_cheek", "right_cheek", "chin",
]
# fmt: on
POINTS = ("neck_left_point", "neck_right_point", "front_middle_bottom_point_boundary")
POINTS += ("back_middle_bottom_point_boundary",)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open")


@pytest.fixture(scope="module")
def template(head: HeadModel) -> np.ndarray:
    return head.v_template.numpy().astype(np.float64)


def ids(head: HeadModel, name: str) -> np.ndarray:
    return head.regions[name].numpy()


def posed(head: HeadModel, **parameters: object) -> np.ndarray:
    tensors = {name: torch.as_tensor(np.asarray(value), dtype=torch.float32) for name, value in parameters.items()}
    return head(**tensors).vertices[0].numpy().astype(np.float64)


def ball(vertices: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre of an eyeball and the distances of its vertices to it."""
    points = vertices[index]
    system = np.column_stack([2 * points, np.ones(len(points))])
    center = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0][:3]
    return center, np.linalg.norm(points - center, axis=1)


def lid_dip(head: HeadModel, vertices: np.ndarray) -> float:
    """How deep the deepest lid or socket vertex lies in its eyeball, metres."""
    worst = 0.0
    for side in ("left", "right"):
        center, radii = ball(vertices, ids(head, f"{side}_eyeball"))
        skin = np.setdiff1d(ids(head, f"{side}_eye"), ids(head, f"{side}_eyeball"))
        worst = max(worst, radii.mean() - np.linalg.norm(vertices[skin] - center, axis=1).min())
    return worst


def lip_crossing(head: HeadModel, vertices: np.ndarray, template: np.ndarray) -> float:
    """How much lower than at rest the upper lip's edge hangs against the lower one's, metres, worst of its middle."""
    upper, lower = ids(head, "lip_inside_ring_upper"), ids(head, "lip_inside_ring_lower")
    pair = lower[np.abs(template[upper][:, None, 0] - template[lower][None, :, 0]).argmin(1)]
    middle = np.abs(template[upper, 0]) < 0.016
    gap = vertices[upper, 1] - vertices[pair, 1] - (template[upper, 1] - template[pair, 1])
    return float(-gap[middle].min())


def test_sizes_and_metadata(head: HeadModel) -> None:
    assert assets.open_head_path().stat().st_size <= 15 * 2**20
    assert head.n_shape >= 100 and head.n_expr >= 50
    assert 4000 <= head.n_vertices <= 8000
    assert head.metadata["name"] == "open" and head.metadata["is_flame"] is False
    assert (assets.open_head_path().parent / "LICENSE.md").is_file()
    assert head.texture is not None and head.texture.shape[0] >= 1024
    json.dumps(head.metadata)


def test_arrays_are_finite_and_used(head: HeadModel) -> None:
    for name in ("v_template", "shapedirs", "exprdirs", "posedirs", "J_regressor", "weights", "uv"):
        assert torch.isfinite(getattr(head, name)).all(), name
    assert np.array_equal(np.unique(head.faces.numpy()), np.arange(head.n_vertices))
    assert np.array_equal(np.unique(head.uv_faces.numpy()), np.arange(len(head.uv)))


def test_one_sigma_is_what_people_vary_by(head: HeadModel, template: np.ndarray) -> None:
    """Unit-variance coefficients: falling spectrum, millimetres at one sigma, sizes spread by a few percent."""
    size = head.shapedirs.pow(2).sum(1).mean(0).sqrt().numpy()
    assert np.all(np.diff(size) < 1e-5) and 1e-3 < size[0] < 1e-2 and size[-1] > 1e-6
    rng = np.random.default_rng(0)
    draws = np.stack([posed(head, shape=rng.standard_normal(head.n_shape)) for _ in range(60)])
    skull = np.concatenate([ids(head, "scalp"), ids(head, "face")])
    spread = np.linalg.norm(draws[:, skull] - draws[:, skull].mean(1, keepdims=True), axis=2).mean(1)
    assert 0.02 < spread.std() / spread.mean() < 0.05
    rms = head.exprdirs.pow(2).sum((1, 2)).numpy()[ids(head, "face")]
    assert 5e-4 < np.sqrt(rms.mean()) < 5e-3


def test_template_is_a_head_in_head_space(head: HeadModel, template: np.ndarray) -> None:
    centers = [ball(template, ids(head, f"{side}_eyeball"))[0] for side in ("left", "right")]
    assert np.allclose(np.mean(centers, axis=0), [0.0, 0.035, 0.0284], atol=1e-4)
    nose = template[ids(head, "nose")]
    assert nose[:, 2].max() > template[ids(head, "ears"), 2].max() + 0.05
    assert template[ids(head, "chin"), 1].max() < nose[:, 1].min() < template[ids(head, "forehead"), 1].min()


def lid_rim(head: HeadModel, template: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Vertices that frame the opened eye, and the template's eyeball: its centre and radius."""
    center, radii = ball(template, ids(head, f"{side}_eyeball"))
    skin = np.setdiff1d(ids(head, f"{side}_eye"), ids(head, f"{side}_eyeball"))
    away = template[skin] - center
    rim = skin[(np.linalg.norm(away, axis=1) < radii.mean() + 6e-4) & (away[:, 2] > 0)]
    return rim, center, float(radii.mean())


def test_the_eyes_are_an_adults(head: HeadModel, template: np.ndarray) -> None:
    """Published means of adults: pupils 63 mm apart, eyeballs 24 mm across, irises 11.7 mm across."""
    left, right = ((head.J_regressor.numpy() @ template)[joint] for joint in (3, 4))
    assert abs(np.linalg.norm(left - right) - 0.063) < 0.0005
    for side in ("left", "right"):
        center, radii = ball(template, ids(head, f"{side}_eyeball"))
        assert abs(2 * radii.mean() - 0.024) < 0.0005 and radii.std() < 1e-5
        iris = template[ids(head, f"{side}_iris")] - center
        assert abs(2 * np.linalg.norm(iris[:, :2], axis=1).max() - 0.0117) < 0.0005


def test_lids_lie_on_the_eyeballs_all_around(head: HeadModel, template: np.ndarray) -> None:
    for side in ("left", "right"):
        rim, center, radius = lid_rim(head, template, side)
        away = template[rim] - center
        gap = np.linalg.norm(away, axis=1) - radius
        assert gap.min() > 0.0002 and np.median(gap) < 0.0004
        # seen from the front no direction is without a lid near the eyeball
        around = np.sort(np.arctan2(away[:, 1], away[:, 0]))
        assert np.diff(np.append(around, around[0] + 2 * np.pi)).max() < np.radians(40)


def test_lids_stay_near_the_eyeballs_in_other_heads_and_faces(head: HeadModel, template: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    rims = [lid_rim(head, template, side)[0] for side in ("left", "right")]
    gaps = []
    for _ in range(40):
        for vertices in (
            posed(head, shape=rng.standard_normal(head.n_shape)),
            posed(head, expr=rng.standard_normal((1, head.n_expr))),
        ):
            for rim, side in zip(rims, ("left", "right"), strict=True):
                center, radii = ball(vertices, ids(head, f"{side}_eyeball"))
                gaps.append(np.percentile(np.linalg.norm(vertices[rim] - center, axis=1) - radii.mean(), 90))
    assert np.median(gaps) < 0.001 and np.percentile(gaps, 95) < 0.0025


def test_weights_and_regressor(head: HeadModel, template: np.ndarray) -> None:
    weights, regressor = head.weights.numpy(), head.J_regressor.numpy()
    assert weights.min() >= 0 and np.allclose(weights.sum(1), 1, atol=1e-5)
    assert regressor.min() >= 0 and np.allclose(regressor.sum(1), 1, atol=1e-5)
    assert np.allclose(weights[ids(head, "bottomline"), 0], 1, atol=1e-6)
    assert np.allclose(weights[ids(head, "left_eyeball"), 3], 1) and np.allclose(
        weights[ids(head, "right_eyeball"), 4], 1
    )
    joints = regressor @ template
    assert np.all(np.diff(joints[:4, 1]) > 0)
    for joint, side in ((3, "left"), (4, "right")):
        assert np.allclose(joints[joint], ball(template, ids(head, f"{side}_eyeball"))[0], atol=2e-5)


def test_eyeballs_are_closed_spheres(head: HeadModel, template: np.ndarray) -> None:
    for side in ("left", "right"):
        index = ids(head, f"{side}_eyeball")
        inside = np.isin(head.faces.numpy(), index)
        faces = head.faces.numpy()[inside.all(1)]
        assert np.array_equal(inside.any(1), inside.all(1))
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        assert np.all(np.unique(edges, axis=0, return_counts=True)[1] == 2)
        center, radii = ball(template, index)
        assert np.ptp(radii) < 2e-5
        corners = template[faces] - center
        assert (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() > 0


def test_skin_is_open_at_the_bottom_only(head: HeadModel) -> None:
    faces = head.faces.numpy()
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    undirected, count = np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)
    assert count.max() == 2
    assert len(np.unique(directed, axis=0)) == len(directed), "neighbours wind alike"
    assert np.array_equal(np.unique(undirected[count == 1]), ids(head, "bottomline"))


@pytest.mark.parametrize("name", NAMES)
def test_region_is_there(head: HeadModel, name: str) -> None:
    index = ids(head, name)
    assert len(np.unique(index)) == len(index) and len(index) == 1 if name in POINTS else len(index) >= 13


def test_regions_are_on_their_sides(head: HeadModel, template: np.ndarray) -> None:
    for name in LEFT_RIGHT:
        left, right = ids(head, f"left_{name}"), ids(head, f"right_{name}")
        assert template[left, 0].min() > -1e-4 and template[right, 0].max() < 1e-4, name
        assert abs(len(left) - len(right)) <= 2, name
    assert template[ids(head, "neck_left_point"), 0] > 0.03 > -0.03 > template[ids(head, "neck_right_point"), 0]
    front, back = ids(head, "front_middle_bottom_point_boundary"), ids(head, "back_middle_bottom_point_boundary")
    assert template[front, 2] > template[back, 2] + 0.05


def test_regions_fit_together(head: HeadModel, template: np.ndarray) -> None:
    def masked(*names: str) -> np.ndarray:
        return head.region_mask(*names).numpy()

    face = masked("face")
    assert not (face & masked("ears", "neck", "scalp", "eyeballs", "lip_inside")).any()
    assert not (masked("scalp") & masked("neck")).any() and not (masked("ears") & masked("neck", "scalp")).any()
    assert np.array_equal(masked("eyeballs"), masked("irises", "sclerae"))
    assert masked("face")[ids(head, "lips")].all() and masked("lip_inside")[ids(head, "lip_inside_ring")].all()
    nose, lips, chin = (template[ids(head, n), 1].mean() for n in ("nose", "lips", "chin"))
    assert chin < lips < nose
    upper, lower = ids(head, "lip_outside_ring_upper"), ids(head, "lip_outside_ring_lower")
    assert len(upper) == len(lower) == 15 and template[upper, 1].min() > template[lower, 1].max() - 0.004
    # an iris is the front of its eyeball
    for side in ("left", "right"):
        center, _ = ball(template, ids(head, f"{side}_eyeball"))
        direction = template[ids(head, f"{side}_iris")] - center
        assert (direction[:, 2] / np.linalg.norm(direction, axis=1)).min() > np.cos(np.radians(30))


def test_jaw_opens_the_mouth_and_leaves_the_forehead(head: HeadModel, template: np.ndarray) -> None:
    moved = posed(head, jaw_pose=[[0.2, 0, 0]]) - template
    chin = moved[ids(head, "chin")]
    assert chin[:, 1].max() < -0.005 and chin[:, 2].mean() < -0.003
    for still in ("forehead", "scalp", "ears", "eyeballs", "bottomline"):
        assert np.abs(moved[ids(head, still)]).max() < 1.5e-3, still
    upper, lower = ids(head, "lip_inside_ring_upper"), ids(head, "lip_inside_ring_lower")
    opened = template + moved
    assert opened[upper, 1].mean() - opened[lower, 1].mean() > 0.007


def test_eyes_turn_about_their_centres(head: HeadModel, template: np.ndarray) -> None:
    turned = posed(head, eyes_pose=[[0.2, 0.3, 0, 0.2, 0.3, 0]])
    for side in ("left", "right"):
        index = ids(head, f"{side}_eyeball")
        before, after = ball(template, index), ball(turned, index)
        assert np.allclose(before[0], after[0], atol=2e-5) and np.allclose(before[1], after[1], atol=2e-5)
        assert turned[ids(head, f"{side}_iris"), 0].mean() > template[ids(head, f"{side}_iris"), 0].mean() + 2e-3
    skin = ids(head, "face")
    assert np.allclose(turned[skin], template[skin], atol=1e-6)


def test_neck_turns_the_head_and_not_the_bust(head: HeadModel, template: np.ndarray) -> None:
    turned = posed(head, neck_pose=[[0, 0.4, 0]])
    assert np.allclose(turned[ids(head, "bottomline")], template[ids(head, "bottomline")], atol=1e-6)
    moved = turned - template
    assert moved[ids(head, "nose"), 0].min() > 0.02
    # the skull turns rigidly
    rigid = np.concatenate([ids(head, "forehead"), ids(head, "eyeballs"), ids(head, "nose")])
    a, b = template[rigid] - template[rigid].mean(0), turned[rigid] - turned[rigid].mean(0)
    assert np.allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1), atol=1e-4)


def test_texture_coordinates(head: HeadModel) -> None:
    uv, faces = head.uv.numpy().astype(np.float64), head.uv_faces.numpy()
    assert uv.min() >= 0 and uv.max() <= 1 and len(faces) == len(head.faces)
    a, b = uv[faces[:, 1]] - uv[faces[:, 0]], uv[faces[:, 2]] - uv[faces[:, 0]]
    area = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    assert area.min() > 1e-8, "no triangle is folded over or empty"
    assert area.sum() > 0.6
    # each texture coordinate belongs to one vertex
    owner = np.full(len(uv), -1)
    owner[faces.ravel()] = head.faces.numpy().ravel()
    assert np.array_equal(owner[faces], head.faces.numpy())


def test_texture_is_a_face(head: HeadModel) -> None:
    assert head.texture is not None
    size = head.texture.shape[0]
    uv, uv_faces, faces = head.uv.numpy(), head.uv_faces.numpy(), head.faces.numpy()

    def color(name: str) -> np.ndarray:
        rows = head.face_mask(name).numpy()
        middle = uv[uv_faces[rows]].mean(1)
        return head.texture[((1 - middle[:, 1]) * size).astype(int), (middle[:, 0] * size).astype(int)].mean(0)

    assert faces.shape == uv_faces.shape
    cheek, lips, sclera, iris = (color(n) for n in ("left_cheek", "lips", "sclerae", "irises"))
    assert cheek[0] > cheek[1] > cheek[2]
    assert lips[0] / lips[1] > cheek[0] / cheek[1] + 0.1
    assert sclera.min() > 150 and iris.mean() < 0.6 * sclera.mean()


def test_at_rest_nothing_overlaps(head: HeadModel, template: np.ndarray) -> None:
    assert lid_dip(head, template) <= 0


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_single_expressions_keep_lips_and_lids_apart(head: HeadModel, template: np.ndarray, sign: float) -> None:
    directions = head.exprdirs.numpy().astype(np.float64)
    for k in range(head.n_expr):
        vertices = template + sign * directions[..., k]
        assert lid_dip(head, vertices) < 2e-4, k
        assert lip_crossing(head, vertices, template) < 1.2e-3, k
    assert np.abs(directions[ids(head, "eyeballs")]).max() == 0


def test_random_faces_keep_lips_and_lids_apart(head: HeadModel, template: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    dips, crossings = [], []
    for _ in range(40):
        vertices = posed(head, expr=rng.standard_normal((1, head.n_expr)))
        dips.append(lid_dip(head, vertices))
        crossings.append(lip_crossing(head, vertices, template))
        dips.append(lid_dip(head, posed(head, shape=rng.standard_normal(head.n_shape))))
    assert np.percentile(dips, 90) < 9e-4 and max(dips) < 2e-3
    assert np.median(crossings) < 1.2e-3 and np.percentile(crossings, 90) < 2.5e-3
