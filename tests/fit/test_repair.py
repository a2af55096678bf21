"""Triangles that offsets turned over are repaired where they are, and nothing else changes."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from flame_fitting.fit.folds import folded_at, folded_by_dynamic
from flame_fitting.fit.parameters import PARAMETERS
from flame_fitting.fit.repair import (
    Repair,
    RepairConfig,
    gradient_energy,
    grown,
    hat_gradients,
    repair,
    repair_dynamic,
    said,
    touched_vertices,
)
from flame_fitting.fit.solvers.registration import OffsetConfig, fit_offsets, folded_triangles
from flame_fitting.head.mesh_graph import MeshGraph
from flame_fitting.head.model import HeadModel
from tests.fit.known_truth import problem, sequence
from tests.fit.settings import ITERATIONS
from tests.toy import toy_head_data


@cache
def _fitted():
    """A sound fit: head, offsets, targets, weights, and the fit's mean distance to the surface."""
    head, truth, targets, weights = problem()
    start = truth.clone()
    start.static_offset.zero_()
    found = fit_offsets(head, start, targets, weights, ITERATIONS)
    assert not folded_triangles(head, found).any()
    return head, found, targets, weights


def _distance_mm(head, parameters, targets, where) -> np.ndarray:
    vertices, surface = parameters.vertices(head)[0].numpy()[where], targets[0].surface
    _, index = surface.tree.query(vertices)
    return 1000 * np.abs(np.einsum("nc,nc->n", surface.normals[index], vertices - surface.points[index]))


def _thrown(head, parameters, count: int, size: float, seed: int):
    """Offsets with some vertices of the face thrown off, and which triangles that folds."""
    rng = np.random.default_rng(seed)
    out = parameters.clone()
    chosen = rng.choice(head.regions["face"].numpy(), count, replace=False)
    out.static_offset[0, chosen] += torch.as_tensor(size * rng.standard_normal((count, 3)))
    return out, folded_triangles(head, out).numpy()


def _beyond(head, folded, rings: int) -> np.ndarray:
    faces = head.faces.numpy()
    return ~grown(touched_vertices(faces, folded, head.n_vertices), MeshGraph(faces, head.n_vertices).edges, rings)


@pytest.mark.parametrize("seed", [4, 9])
def test_a_vertex_across_its_triangles_is_put_back_and_all_else_stays(seed: int) -> None:
    head, sound, targets, weights = _fitted()
    broken, folded = _thrown(head, sound, 1, 0.04, seed)
    assert folded.any()
    done = repair(head, broken, targets, weights)
    assert not folded_triangles(head, done.parameters).any() and not done.faded.any()
    assert done.smoothed[folded].all()
    far = _beyond(head, folded, RepairConfig().rings)
    assert far.sum() > 300
    torch.testing.assert_close(done.parameters.static_offset[0, far], sound.static_offset[0, far], rtol=0, atol=0)
    face = head.region_mask("face").numpy()
    before, after = (_distance_mm(head, p, targets, face) for p in (sound, done.parameters))
    np.testing.assert_allclose(after[far[face]], before[far[face]], rtol=0, atol=1e-4)  # joints follow a little
    assert after.mean() < 1.05 * before.mean() + 0.002  # refitted where it was folded, too


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("data", [True, False])
def test_no_fold_is_left_however_many_there_are(seed: int, data: bool) -> None:
    head, sound, targets, weights = _fitted()
    broken, folded = _thrown(head, sound, (3, 20, 100)[seed], 0.03, seed)
    assert folded.sum() > 3
    targets = targets if data else [replace(targets[0], surface=None)]
    done = repair(head, broken, targets, weights)
    assert not (folded_triangles(head, done.parameters) & head.face_mask("face")).any()
    assert torch.isfinite(done.parameters.static_offset).all()


def test_sound_offsets_are_returned_as_they_are() -> None:
    head, sound, targets, weights = _fitted()
    done = repair(head, sound, targets, weights)
    assert done.parameters is sound and not done.smoothed.any() and not done.faded.any()
    bare = sound.clone()
    bare.static_offset.zero_()
    assert repair(head, bare, targets, weights).parameters is bare


def test_what_nothing_opens_loses_its_offsets_and_only_there() -> None:
    head, sound, targets, weights = _fitted()
    broken, folded = _thrown(head, sound, 1, 0.04, 4)
    done = repair(head, broken, targets, weights, RepairConfig(rounds=0, fade=(1, 2)))
    assert not folded_triangles(head, done.parameters).any()
    near, far = ~_beyond(head, folded, 0), _beyond(head, folded, 4)
    assert done.faded[near].all() and not done.faded[far].any() and "lost offsets" in said(head, done)
    assert done.parameters.static_offset[0, near].abs().max() == 0
    torch.testing.assert_close(done.parameters.static_offset[0, far], sound.static_offset[0, far], rtol=0, atol=0)


def test_folds_that_reach_everywhere_lose_all_offsets() -> None:
    head, sound, targets, weights = _fitted()
    turned = sound.clone()
    turned.static_offset[0, :, 0] = -2 * head.v_template[:, 0]  # a mirror image: inside out
    assert folded_triangles(head, turned).float().mean() > 0.5
    done = repair(head, turned, targets, weights, RepairConfig(rounds=0, fade=()))
    assert done.parameters.static_offset.abs().max() == 0 and done.faded.all()


@cache
def _moving():
    """Three timesteps with sound offsets, static and dynamic ones; head, offsets, targets, weights."""
    head, truth, targets, weights = sequence(3)
    waves = torch.sin(60 * head.v_template)
    rise = torch.tensor([0.5, 1.0, -0.5], dtype=torch.float64)[:, None, None]
    sound = replace(truth, static_offset=1e-3 * waves[None], dynamic_offset=5e-4 * rise * waves.flip(1)[None])
    assert not folded_at(head, sound).any()
    return head, sound, targets, weights


def _thrown_at(head, parameters, timestep: int, seed: int):
    """One vertex of the face thrown off at one timestep, and which triangles that folds there."""
    out = parameters.clone()
    generator = torch.Generator().manual_seed(seed)
    chosen = int(head.regions["face"][torch.randint(len(head.regions["face"]), (1,), generator=generator)])
    out.dynamic_offset[timestep, chosen] += 0.04 * torch.randn(3, generator=generator, dtype=torch.float64)
    return out, folded_by_dynamic(head, out).numpy()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("data", [True, False])
def test_what_dynamic_offsets_turn_at_a_timestep_is_put_back_there_and_nothing_else_changes(seed, data) -> None:
    head, sound, targets, weights = _moving()
    broken, folded = _thrown_at(head, sound, 1, seed)
    assert folded[1].sum() > 1 and not folded[[0, 2]].any()
    targets = targets if data else [replace(target, surface=None) for target in targets]
    done = repair_dynamic(head, broken, targets, weights)
    assert not folded_at(head, done.parameters).any() and done.timesteps == (1,) and not done.faded.any()
    assert done.smoothed[folded[1]].all()
    moved = (done.parameters.vertices(head) - sound.vertices(head))[1].norm(dim=-1)
    assert moved.max() < (6e-4 if data else 3e-4), "filled in from around, on the static offsets that are there"
    far = _beyond(head, folded[1], RepairConfig().rings)
    assert far.sum() > 300
    for parameter in PARAMETERS:
        after, before = (getattr(one, parameter.name).clone() for one in (done.parameters, broken))
        if parameter.name == "dynamic_offset":
            after[1, ~far] = before[1, ~far]
        assert torch.equal(after, before), parameter.name
    assert "dynamic offsets of 1 timestep turned them over" in said(head, done)


def test_what_static_offsets_turn_is_not_the_dynamic_ones_to_repair() -> None:
    head, sound, targets, weights = _moving()
    broken = sound.clone()
    chosen = head.regions["face"][40]
    broken.static_offset[0, chosen] += torch.tensor([0.03, 0.0, -0.02], dtype=torch.float64)
    assert folded_at(head, broken).any()
    broken.dynamic_offset[:] = 1e-6
    assert repair_dynamic(head, broken, targets, weights).parameters is broken
    assert repair_dynamic(head, sound, targets, weights).parameters is sound


def test_dynamic_offsets_that_nothing_opens_fade_to_the_static_ones() -> None:
    head, sound, targets, weights = _moving()
    broken, folded = _thrown_at(head, sound, 2, 1)
    done = repair_dynamic(head, broken, targets, weights, RepairConfig(rounds=0, fade=(1, 2)))
    assert not folded_at(head, done.parameters).any()
    near, far = ~_beyond(head, folded[2], 0), _beyond(head, folded[2], 4)
    assert done.faded[near].all() and not done.faded[far].any()
    assert done.parameters.dynamic_offset[2, near].abs().max() < 1e-15
    assert torch.equal(done.parameters.dynamic_offset[2, far], broken.dynamic_offset[2, far])
    assert torch.equal(done.parameters.static_offset, broken.static_offset)


def _creased_head(depth: float) -> tuple[HeadModel, np.ndarray, np.ndarray]:
    """A head with a sharp valley along one edge of its face, as between lips; the edge's vertices and their normal."""
    data = toy_head_data()
    vertices, edges = data.v_template.copy(), MeshGraph(data.faces, len(data.v_template)).edges
    edge = edges[np.argmin(np.sum((vertices[edges].mean(1) - [0.0, -0.02, 0.088]) ** 2, axis=1))]
    inward = -vertices[edge].mean(0) / np.linalg.norm(vertices[edge].mean(0))
    vertices[edge] += depth * inward
    return HeadModel(replace(data, v_template=vertices)).double(), edge, inward


def test_a_valley_that_the_surface_presses_shut_stays_open_and_the_rest_as_near() -> None:
    head, edge, inward = _creased_head(0.0165)

    def pressed(model: HeadModel) -> torch.Tensor:
        out = torch.zeros_like(model.v_template)
        out[edge] = torch.as_tensor(0.0115 * inward)
        return out

    _, truth, targets, weights = problem(offset=pressed, head=head)
    assert folded_triangles(head, truth).sum() == 1
    start = truth.clone()
    start.static_offset.zero_()
    found = fit_offsets(head, start, targets, weights, ITERATIONS, OffsetConfig(stiffness_to=0.003))
    folded = folded_triangles(head, found).numpy()
    assert folded.sum() == 1
    done = repair(head, found, targets, weights)
    assert not folded_triangles(head, done.parameters).any() and not done.faded.any()
    assert said(head, done) == "1 triangle of the face smoothed where static offsets turned them over"
    face = head.region_mask("face").numpy()
    elsewhere = face & _beyond(head, folded, 1)
    before, after = (_distance_mm(head, p, targets, elsewhere).mean() for p in (found, done.parameters))
    assert elsewhere.sum() > 0.9 * face.sum() and after < 1.03 * before + 1e-4
    moved = (done.parameters.vertices(head) - found.vertices(head)).norm(dim=-1)
    assert 1e-4 < moved.max() < 3e-3, "a fold is opened, not filled in"


def test_gradients_are_exact_for_linear_fields() -> None:
    head = problem()[0]
    vertices, faces = head.v_template.numpy(), head.faces.numpy()
    slope, values = np.array([3.0, -2.0, 5.0]), vertices @ [3.0, -2.0, 5.0]
    gradients = hat_gradients(vertices, faces)
    found = np.einsum("fkc,fk->fc", gradients, values[faces])
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    in_plane = slope - (normal @ slope)[:, None] * normal
    np.testing.assert_allclose(found, in_plane, atol=1e-9)
    weight = np.random.default_rng(0).uniform(size=len(faces))
    energy = gradient_energy(gradients, faces, weight, len(vertices))
    np.testing.assert_allclose(values @ (energy @ values), (weight * (in_plane**2).sum(axis=1)).sum())
    np.testing.assert_allclose(energy @ np.ones(len(vertices)), 0, atol=1e-8)


def test_triangles_without_area_have_finite_gradients() -> None:
    line = np.array([[0.0, 0, 0], [1, 0, 0], [0.5, 0, 0]])
    assert np.isfinite(hat_gradients(line, np.array([[0, 1, 2], [1, 1, 2]]))).all()


def test_what_was_repaired_is_said_by_region() -> None:
    head = problem()[0]
    smoothed = np.zeros(len(head.faces), dtype=bool)
    smoothed[np.flatnonzero(head.face_mask("face").numpy())[:3]] = True
    smoothed[np.flatnonzero(head.face_mask("neck").numpy())[:1]] = True
    text = said(head, Repair(problem()[1], smoothed, np.zeros(head.n_vertices, dtype=bool)))
    assert text == "3 triangles of the face, 1 of the neck smoothed where static offsets turned them over"
