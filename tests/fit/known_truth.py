"""Targets sampled from a posed toy head, so that the true parameters are known."""

from dataclasses import replace

import numpy as np
import torch
import trimesh

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights, vertex_areas
from flame_fitting.fit.surface import SurfaceCloud
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.head.embedding import LandmarkEmbedding
from tests.toy import toy_head


def cloud_of(vertices, faces, count=60000, seed=0):
    """Dense samples of a mesh with smooth normals."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    points, index = trimesh.sample.sample_surface(mesh, count, seed=seed)
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[index], points)
    normals = (mesh.vertex_normals[mesh.faces[index]] * weights[..., None]).sum(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return SurfaceCloud(np.asarray(points), normals, np.full((count, 3), 0.5))


def embedding_on(head, count=80, seed=1):
    """Random landmarks on the head's front."""
    rng = np.random.default_rng(seed)
    front = np.flatnonzero((head.v_template[head.faces][..., 2] > 0.02).all(1).numpy())
    weights = rng.dirichlet([1, 1, 1], size=count)
    return LandmarkEmbedding(
        rng.choice(front, count, replace=False),
        weights,
        np.full(count, 0.5),
        np.full(count, 9),
        "toy",
        "toy",
        "clay",
        "toy",
    )


def ibug_embedding(head, seed=3):
    """The 68 iBUG points at random places on the head's front, none at a triangle's edge."""
    rng = np.random.default_rng(seed)
    front = np.flatnonzero((head.v_template[head.faces][..., 2] > 0.03).all(1).numpy())
    return LandmarkEmbedding(
        rng.choice(front, 68, replace=False),
        rng.dirichlet([2, 2, 2], size=68),
        np.full(68, 0.5),
        np.full(68, 9),
        "ibug68",
        "toy",
        "clay",
        "toy",
    )


def problem(timesteps=1, seed=0, offset=None, head=None):
    """Head (the toy one if none is given), true parameters, and targets of every timestep in the reference frame."""
    head = head or toy_head().double()
    generator = torch.Generator().manual_seed(seed)

    def draw(*size, scale):
        return torch.randn(*size, generator=generator, dtype=torch.float64) * scale

    truth = replace(
        FitParameters.neutral(head, timesteps),
        placement=torch.cat([draw(3, scale=0.03), draw(3, scale=0.002), draw(1, scale=0.02)]),
        shape=draw(head.n_shape, scale=1.0),
        expr=draw(timesteps, head.n_expr, scale=0.3),
        jaw_pose=torch.tensor([[0.12, 0.0, 0.0]], dtype=torch.float64).repeat(timesteps, 1),
    )
    if offset is not None:
        truth.static_offset[0] = offset(head)
    embedding = embedding_on(head)
    vertices = truth.vertices(head)
    targets = []
    for t in range(timesteps):
        points = embedding.points(vertices[t : t + 1], head.faces)[0].numpy()
        marks = make_landmark_target(head, embedding, points, np.full(len(points), 2e-4), np.ones(len(points)))
        targets.append(FrameTarget((SourceTarget(marks),), cloud_of(vertices[t].numpy(), head.faces.numpy())))
    areas = vertex_areas(head.v_template, head.faces)
    ones = torch.ones(head.n_vertices, dtype=torch.float64)
    weights = SurfaceWeights(areas / areas.mean(), ones[head.faces].mean(1), ones)
    return head, truth, targets, weights


def sequence(timesteps, seed=0, noise=0.0):
    """`problem` with every parameter away from zero that moves at so many timesteps: see `parameters.moving_parts`.

    `noise` (m) is added to the landmarks; there are 80.
    """
    head = toy_head().double()
    generator = torch.Generator().manual_seed(seed)

    def draw(*size, scale):
        return torch.randn(*size, generator=generator, dtype=torch.float64) * scale

    still = timesteps == 1
    truth = replace(
        FitParameters.neutral(head, timesteps),
        placement=torch.cat([draw(3, scale=0.03 * still), draw(3, scale=0.002 * still), draw(1, scale=0.02)]),
        shape=draw(head.n_shape, scale=1.0),
        expr=draw(timesteps, head.n_expr, scale=0.3),
        rotation=draw(timesteps, 3, scale=0.0 if still else 0.05),
        translation=draw(timesteps, 3, scale=0.0 if still else 0.005),
        neck_pose=draw(timesteps, 3, scale=0.05),
        jaw_pose=draw(timesteps, 3, scale=0.03) + torch.tensor([0.15, 0.0, 0.0]),
        eyes_pose=draw(timesteps, 3, scale=0.1).repeat(1, 2),
    )
    embedding, vertices, targets = embedding_on(head), truth.vertices(head), []
    for t in range(timesteps):
        points = embedding.points(vertices[t : t + 1], head.faces)[0] + draw(80, 3, scale=noise)
        marks = make_landmark_target(head, embedding, points.numpy(), np.full(80, 2e-4), np.ones(80))
        targets.append(FrameTarget((SourceTarget(marks),), cloud_of(vertices[t].numpy(), head.faces.numpy())))
    weight = torch.ones(head.n_vertices, dtype=torch.float64)
    return head, truth, targets, SurfaceWeights(weight, weight[head.faces].mean(1), weight)


def chain_cost(x, sigma, step):
    """Half the squared noise, in sigmas, of x' = a x + noise: `sigma` of x (None: random walk), `step` of changes."""
    if sigma is None:
        return 0.5 * (x.diff(dim=0) / step).square().sum()
    sigma = torch.as_tensor(sigma, dtype=x.dtype)
    a = 1.0 if step is None else 1 - step**2 / (2 * float(sigma.flatten()[0]) ** 2)
    if step is None:
        return 0.5 * (x / sigma).square().sum()
    noise = (x[1:] - a * x[:-1]) / (sigma * (1 - a**2) ** 0.5)
    return 0.5 * ((x[0] / sigma).square().sum() + noise.square().sum())
