"""Any avatar will do: finding the face, planning and drawing ask nothing of it but what the protocol names."""

import ast
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from flame_fitting.avatar.face_finding import find_face
from flame_fitting.avatar.head_calibration import head_avatar, render_views
from flame_fitting.avatar.interface import OUTPUTS, Avatar, RenderedViews
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.avatar.probes import probes_of
from flame_fitting.avatar.unit_frame import in_unit_frame
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, pixel_rays, project
from flame_fitting.capture.similarity import apply_similarity
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.mediapipe_detector import MediaPipeConfig, MediaPipeDetector

KNOW_MESHES = {
    *("avatar.mesh", "avatar.mesh_avatar", "avatar.render_scene", "avatar.rendering", "avatar.loading"),
    *("avatar.shown_avatar", "avatar.cleanup", "avatar.gltf", "avatar.obj", "avatar.ply", "avatar.simple_formats"),
    *("avatar.head_calibration", "report.drawing"),  # they make a mesh of a head model
    *(f"export.rigging.{name}" for name in ("avatar_file", "converting", "rig", "showing", "stitching")),
    "avatar.splat_occlusion",  # it makes one of splats
}
"""Modules that may import the modules of meshes."""


@dataclass
class Ball:
    """A grey ball without a single triangle: every pixel asks the equation of the sphere."""

    center: np.ndarray
    radius: float
    path: Path = Path("ball")
    file_hash: str = ""
    format: str = "memory"
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    geometry = "mesh"
    has_color = False

    @property
    def bounds(self):
        return np.stack([self.center - self.radius, self.center + self.radius])

    @property
    def points(self):
        directions = np.random.default_rng(0).normal(size=(400, 3))
        return self.center + self.radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)

    def normalized(self, center, scale):
        return Ball((self.center - center) / scale, self.radius / scale)

    def settled(self, K, world_to_camera, size):
        return self

    @property
    def unseen(self):
        return np.zeros(0, dtype=bool)

    def draw(
        self, K, world_to_camera, width, height, shading="unlit", background=(1.0, 1.0, 1.0), supersample=2,
        light_rotation=None, outputs=OUTPUTS,
    ):  # fmt: skip
        columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2)
        out = RenderedViews(*(np.zeros((len(K), *shape), np.float32) for shape in
                              ((3, height, width), (height, width), (height, width), (height, width, 3))))  # fmt: skip
        for view in range(len(K)):
            eye, rays = pixel_rays(pixels, K[view], world_to_camera[view])
            along = rays @ (self.center - eye)
            inside = self.radius**2 - ((self.center - eye) ** 2).sum() + along**2
            hit = inside > 0
            points = eye + (along - np.sqrt(np.maximum(inside, 0)))[:, None] * rays
            depth = project(points, K[view], world_to_camera[view])[:, 2]
            out.alpha[view] = hit.reshape(height, width)
            out.image[view] = np.where(hit[:, None], 0.5, background).T.reshape(3, height, width)
            out.depth[view] = np.where(hit, depth, 0).reshape(height, width)
            normal = (points - self.center) / self.radius
            out.normal[view] = np.where(hit[:, None], normal, 0).reshape(height, width, 3)
        return RenderedViews(**{name: getattr(out, name) if name in outputs else None for name in OUTPUTS})

    def seen_surface(self, points, head_from_world):
        return None


class Sealed:
    """An avatar that shows of another one only what the protocol names."""

    def __init__(self, inner: Avatar) -> None:
        self.__inner = inner
        for name in ("path", "file_hash", "format", "notes", "warnings"):
            setattr(self, name, getattr(inner, name))

    def settled(self, K, world_to_camera, size):
        return Sealed(self.__inner.settled(K, world_to_camera, size))

    @property
    def unseen(self):
        return self.__inner.unseen

    @property
    def bounds(self):
        return self.__inner.bounds

    @property
    def points(self):
        return self.__inner.points

    @property
    def geometry(self):
        return self.__inner.geometry

    @property
    def has_color(self):
        return self.__inner.has_color

    def normalized(self, center, scale):
        return Sealed(self.__inner.normalized(center, scale))

    def draw(self, *arguments, **options):
        return self.__inner.draw(*arguments, **options)

    def seen_surface(self, points, head_from_world):
        return self.__inner.seen_surface(points, head_from_world)


def test_they_are_avatars() -> None:
    ball = Ball(np.zeros(3), 1.0)
    square = MeshAvatar([], Path("a"), "", "memory")
    assert isinstance(ball, Avatar) and isinstance(Sealed(ball), Avatar)
    assert all(hasattr(type(square), name) for name in ("bounds", "points", "has_color", "draw", "seen_surface"))
    assert not isinstance(np.zeros(3), Avatar)


def test_pictures_of_something_without_triangles() -> None:
    ball, size = Ball(np.array([10.0, 20.0, 30.0]), 2.0), 65
    eyes = ball.center + [[0, 0, 12.0], [12.0, 0, 0]]
    cameras = look_at(eyes, ball.center, np.array([0.0, 1.0, 0.0]))
    views = render_views(ball, np.stack([intrinsics_from_fov(25.0, size, size)] * 2), cameras, size, "clay")
    assert views.images.shape == (2, size, size, 3) and views.images.dtype == np.uint8
    assert (views.images[:, size // 2, size // 2] == 128).all() and (views.images[:, 0, 0] == 255).all()
    np.testing.assert_allclose(views.depth[:, size // 2, size // 2], 10.0, atol=1e-3)
    np.testing.assert_allclose(views.normal[1, size // 2, size // 2], [1, 0, 0], atol=1e-3)


def test_the_unit_frame_and_the_search_ask_for_nothing_else() -> None:
    ball = Ball(np.array([1e6, -2e6, 5e5]), 3e4)
    unit, world_from_unit = in_unit_frame(Sealed(ball))
    np.testing.assert_allclose(unit.bounds, [[-1, -1, -1], [1, 1, 1]], atol=1e-9)
    np.testing.assert_allclose(apply_similarity(world_from_unit, unit.bounds), ball.bounds)
    probes = probes_of(unit)
    assert len(probes) > 100 and {"whole", "+Y 25%", "-Z 50%"} <= {probe.part for probe in probes}
    whole = probes[0]
    np.testing.assert_allclose(whole.center, 0, atol=0.1)


def test_a_face_is_found_on_a_sealed_head_as_on_an_open_one() -> None:
    head, detector = load_head("open"), MediaPipeDetector(config=MediaPipeConfig(jitter=2))
    mesh = head_avatar(head, head.v_template.numpy().astype(np.float64) + [0.0, 1.6, 0.0], "textured")
    found = [find_face(avatar, detector, head) for avatar in (mesh, Sealed(mesh))]
    np.testing.assert_array_equal(found[0].head_from_world, found[1].head_from_world)
    np.testing.assert_allclose(found[1].head_from_world[:3, 3], [0.0, -1.6, 0.0], atol=0.01)


def test_distances_to_a_mesh_are_exact_where_it_was_seen() -> None:
    box = head_avatar(load_head("open"), load_head("open").v_template.numpy().astype(np.float64), "clay")
    corner = box.vertices[box.faces[100]]
    seen = np.repeat(corner.mean(0)[None], 2, axis=0)
    surface = box.seen_surface(2.0 * seen, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert surface.distance(2.0 * seen) == pytest.approx([0.0, 0.0], abs=1e-12)
    far = box.vertices[np.argmax(np.linalg.norm(box.vertices - corner.mean(0), axis=1))]
    assert surface.distance(2.0 * far[None])[0] > 0.1  # the other side was not seen


def test_only_a_meshs_own_modules_know_that_it_is_one(repository: Path) -> None:
    own = {f"flame_fitting.avatar.{name}" for name in ("mesh", "mesh_avatar", "render_scene", "rendering")}
    package = repository / "flame_fitting"
    for path in package.rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        assert module in KNOW_MESHES or not own & {node.module for node in nodes}, f"{module} imports a mesh's modules"
