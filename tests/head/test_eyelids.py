"""Blendshapes that shut the lids, on the open head and on heads of FLAME's format."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.head.apertures import LID_COLUMNS, find_apertures
from flame_fitting.head.eyelids import (
    closing_by_expression,
    closing_eyelids,
    eyelid_shapes,
    with_chosen_eyelids,
    with_eyelids,
)
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.maths.normals import vertex_normals
from tests.toy import toy_head

HEADS = ("open", "standin/flame2023_standin.pkl", "flame2023_open/flame2023_open_reduced.npz")
SIDES = ("left", "right")


@pytest.fixture(scope="module", params=HEADS)
def head(request: pytest.FixtureRequest) -> HeadModel:
    if request.param == "open":
        return load_head("open")
    path: Path = request.getfixturevalue("test_data") / request.param
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return load_head(str(path))


@pytest.fixture(scope="module")
def shapes(head: HeadModel) -> ndarray:
    return eyelid_shapes(head)


def template(head: HeadModel) -> ndarray:
    return head.v_template.double().numpy()


def gaps(head: HeadModel, vertices: ndarray) -> ndarray:
    """mm: the left eye's, then the right one's."""
    found = 1000 * find_apertures(head).gaps(torch.as_tensor(vertices)[None], head.faces)[0].numpy()
    return np.stack([found[LID_COLUMNS : 2 * LID_COLUMNS], found[:LID_COLUMNS]])


def outside(head: HeadModel, vertices: ndarray, side: str) -> ndarray:
    """mm that points of the lid's triangles lie before the eyeball's surface; below 0 inside."""
    faces = head.faces.numpy()
    lid, ball = (faces[head.face_mask(f"{side}_{part}").numpy()] for part in ("eyelid", "eyeball"))
    share = np.array([(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)]) / 4
    points = np.einsum("pk,fkc->fpc", share, vertices[lid]).reshape(-1, 3)
    found = TriangleTree(vertices, ball).closest(points)
    normals = vertex_normals(vertices, ball)[ball[found.face]]
    outward = (found.barycentric[..., None] * normals).sum(1)
    away = points - found.point
    return 1000 * np.linalg.norm(away, axis=1) * np.sign((away * outward).sum(1))


def test_they_shut_each_eye_and_leave_the_other(head: HeadModel, shapes: ndarray) -> None:
    before = gaps(head, template(head))
    assert before.min() > 5
    for number in range(2):
        after = gaps(head, template(head) + shapes[..., number])
        # at one column of the open head the upper rim is that of the fold above the lid
        assert np.median(np.abs(after[number])) < 0.1 and np.abs(after[number]).max() < (
            0.6 if head.name == "open" else 0.15
        )
        np.testing.assert_allclose(after[1 - number], before[1 - number], atol=1e-6)
        half = gaps(head, template(head) + 0.5 * shapes[..., number])
        np.testing.assert_allclose(half[number], 0.5 * (before + after)[number], atol=1e-6)


def test_on_their_way_lids_do_not_cut_the_eyeball(head: HeadModel, shapes: ndarray) -> None:
    """Where the template has them outside; the stand-in's lie up to 1 mm inside, and come out."""
    for number, side in enumerate(SIDES):
        at_rest = min(outside(head, template(head), side).min(), 0.0)
        for share in (0.25, 0.5, 0.75, 1.0, 1.2):
            found = outside(head, template(head) + share * shapes[..., number], side).min()
            assert found > min(at_rest - 0.02, 0.0), share
        assert found > 0.2


def test_the_lower_lid_comes_up_and_the_upper_one_down_most_of_the_way(head: HeadModel, shapes: ndarray) -> None:
    apertures = find_apertures(head)
    moved = shapes.sum(-1)
    rims = apertures.points(torch.as_tensor(moved)[None], head.faces)[0, :, : 2 * LID_COLUMNS, 1].numpy()
    assert (rims[0] < 0).all() and (rims[1] > 0).all()
    assert 0.6 < -rims[0].mean() / (rims[1] - rims[0]).mean() < 0.9


def test_what_is_no_lid_stands_still(head: HeadModel, shapes: ndarray) -> None:
    moved = 1000 * np.linalg.norm(shapes, axis=1)
    still = head.region_mask("eyeballs", "nose", "lips", "forehead", "ears", "scalp", "neck", "teeth").numpy()
    assert (moved[still] == 0).all()
    face = head.region_mask("face").numpy() & ~head.region_mask("eye_region", "eyes").numpy()
    assert moved[face].max() < 0.5
    halves = [head.region_mask(f"{side}_half").numpy() for side in SIDES]
    for number in range(2):
        assert (moved[~halves[number], number] == 0).all() and moved[halves[number], number].max() > 5
    # no triangle is turned over
    faces = head.faces.numpy()
    skin = faces[(moved.max(1) > 0.01)[faces].any(1) & head.face_mask("eye_region").numpy()]

    def normals(vertices: ndarray) -> ndarray:
        a, b, c = vertices[skin].transpose(1, 0, 2)
        cross = np.cross(b - a, c - a)
        return np.asarray(cross / np.linalg.norm(cross, axis=1, keepdims=True))

    before, after = normals(template(head)), normals(template(head) + shapes.sum(-1))
    assert ((before * after).sum(1) < 0).mean() < 0.05  # the rims' own at the corners turn about


def test_both_eyes_of_a_symmetric_head_shut_alike(shapes: ndarray, head: HeadModel) -> None:
    if "standin" not in head.name:
        pytest.skip("it is not symmetric, or its triangles are not")
    left, right = (np.linalg.norm(shapes[..., number], axis=1) for number in range(2))
    from scipy.spatial import cKDTree

    apart, mirrored = cKDTree(template(head) * [-1, 1, 1]).query(template(head))
    same = apart < 1e-5
    assert same.sum() > 4000
    np.testing.assert_allclose(left[same], right[mirrored][same], atol=3e-4)


def test_a_head_has_them_where_its_expressions_shut_eyes_poorly(head: HeadModel) -> None:
    said: list[str] = []
    found = closing_by_expression(head)
    assert found.poor == (head.n_expr == 0)
    assert with_chosen_eyelids(head, "no", said.append).n_eyelids == 0 and not said
    assert with_chosen_eyelids(head, "auto", said.append).n_eyelids == (2 if found.poor else 0)
    assert len(said) == int(found.poor)
    head.set_eyelids(np.zeros((head.n_vertices, 3, 0)))
    assert with_chosen_eyelids(head, "yes", said.append).n_eyelids == 2 and "expressions" in said[-1]
    head.set_eyelids(np.zeros((head.n_vertices, 3, 0)))


def test_few_expressions_shut_eyes_poorly() -> None:
    head = load_head("open")
    head.exprdirs = head.exprdirs[..., :3]
    assert closing_by_expression(head).poor
    head.exprdirs = head.exprdirs[..., :0]
    assert "there are none" in str(closing_by_expression(head))


def test_a_head_without_eyes_is_refused_where_they_are_asked_for() -> None:
    blind = toy_head()
    blind.weights[:, 3:] = 0
    assert with_chosen_eyelids(blind, "auto").n_eyelids == 0
    with pytest.raises(InputError, match="no left eyeball"):
        with_chosen_eyelids(blind, "yes")


def test_they_are_added_at_rest_and_move_no_joint() -> None:
    head = with_eyelids(load_head("open")).double()
    eyelids = torch.tensor([[0.3, 0.0], [0.0, 1.0]], dtype=torch.float64)
    out, bare = head(eyelids=eyelids), head(expr=torch.zeros(2, 1).double())
    torch.testing.assert_close(out.joints, bare.joints)
    torch.testing.assert_close(out.vertices - bare.vertices, torch.einsum("vcl,tl->tvc", head.eyelids, eyelids))
    turned = torch.tensor([[0.0, 0.5, 0.0]] * 2, dtype=torch.float64)
    apart = head(eyelids=eyelids, rotation=turned).vertices - head(rotation=turned).vertices
    torch.testing.assert_close(apart.norm(dim=-1), (out.vertices - bare.vertices).norm(dim=-1))


def test_coefficients_that_shut_a_head() -> None:
    head = with_eyelids(load_head("open"))
    apertures = find_apertures(head)
    opened = template(head) - 0.25 * head.eyelids[..., 1].double().numpy()
    found = closing_eyelids(head, apertures, opened)
    np.testing.assert_allclose(found, [1.0, 1.25], atol=0.02)
