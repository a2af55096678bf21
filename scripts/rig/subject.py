"""Who talks: a head drawn from the model, its skin, its mouth and the light on it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.avatar.mesh import MeshPart, split_by_index
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.maths.normals import vertex_normals

from .course import Course
from .mouth import Mouth, make_mouth

if TYPE_CHECKING:
    from flame_fitting.head.embedding import LandmarkEmbedding
    from flame_fitting.head.model import HeadModel

SHAPE_SIGMA = 0.7
OFFSET_MM = 0.6
"""RMS over the face."""
BLINK = 1.15
"""Of the coefficients that bring the lids' landmarks together: those lie beside the lids' edges."""
LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
"""iBUG points above and below the eyes."""
HIDDEN_MM = 3.0
"""A landmark so far behind the surface is hidden."""
CLOTH = (0.20, 0.23, 0.30)


@dataclass(eq=False)
class Subject:
    """A person."""

    head: "HeadModel"
    """float64."""
    embedding: "LandmarkEmbedding"
    ibug68: Int[ndarray, " 68"]
    """Points of the embedding in iBUG's order."""
    shape: Float[ndarray, " S"]
    static_offset: Float[ndarray, "1 V 3"]
    lids: Float[ndarray, " E"]
    """Expression coefficients that shut the eyes."""
    texture: ndarray
    """(R, R, 3) uint8 sRGB."""
    lights: Float[ndarray, "9 3"]
    """SH coefficients in the studio, at most 1 at any normal."""
    mouth: Mouth
    corners: tuple[ndarray, ndarray, ndarray]
    """Triangles of the drawn mesh, and the vertex and the texture coordinate of its corners."""
    base: Int[ndarray, " n"]
    """Vertices around the neck's end, in order."""

    def vertices(self, course: Course, timestep: int) -> Float[ndarray, "V 3"]:
        """Of the head, in the studio."""
        return self._posed(course, timestep)[0]

    def points(self, vertices: Float[ndarray, "V 3"]) -> Float[ndarray, "68 3"]:
        """iBUG landmarks on it."""
        import torch

        return self.embedding.points(torch.as_tensor(vertices)[None], self.head.faces)[0, self.ibug68].numpy()

    def avatar(self, course: Course, timestep: int) -> tuple[MeshAvatar, Float[ndarray, "V 3"]]:
        """What is drawn at a timestep, in the studio, and the head's own vertices."""
        vertices, rotation, shift = self._posed(course, timestep)
        faces, corner, uv = self.corners
        normals = vertex_normals(vertices, self.head.faces.numpy())
        opaque = np.concatenate([self.texture, np.full((*self.texture.shape[:2], 1), 255, dtype=np.uint8)], axis=2)
        skin = MeshPart(
            vertices[corner],
            faces,
            "head",
            normals[corner],
            self.head.uv.numpy()[uv],
            opaque,
            self._lit(np.ones((len(corner), 3)), normals[corner]),
            wrap=("clamp", "clamp"),
        )
        parts = [skin, self._cap(vertices)]
        for part in self.mouth.posed(rotation, shift):
            assert part.vertex_colors is not None and part.normals is not None
            part.vertex_colors = self._lit(part.vertex_colors[:, :3], part.normals)
            parts.append(part)
        from pathlib import Path

        return MeshAvatar(parts, Path("talking_head"), "", "memory"), vertices

    def _lit(self, colors: Float[ndarray, "N 3"], normals: Float[ndarray, "N 3"]) -> Float[ndarray, "N 4"]:
        from flame_fitting.report.drawing import shading

        light = np.clip(shading(normals, self.lights), 0, 1)
        return np.concatenate([colors * light, np.ones((len(colors), 1))], axis=1)

    def _cap(self, vertices: Float[ndarray, "V 3"]) -> MeshPart:
        """Closes the neck from below."""
        ring = vertices[self.base]
        points = np.concatenate([ring, ring.mean(0, keepdims=True)])
        count = len(ring)
        faces = np.stack([np.arange(count), np.roll(np.arange(count), -1), np.full(count, count)], axis=1)
        return MeshPart(
            points, faces.astype(np.int64), "cap", vertex_normals(points, faces), base_color=(*CLOTH, 1.0),
            double_sided=True,
        )  # fmt: skip

    def _posed(self, course: Course, timestep: int) -> tuple[ndarray, ndarray, ndarray]:
        """Vertices (V, 3), and how each joint carries what was at rest: rotations (J, 3, 3), shifts (J, 3)."""
        import torch

        row = slice(timestep, timestep + 1)
        poses = {
            name: torch.as_tensor(getattr(course, name)[row])
            for name in ("expr", "rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose")
        }
        offset, shape = torch.as_tensor(self.static_offset), torch.as_tensor(self.shape)
        with torch.no_grad():
            out = self.head(shape=shape, static_offset=offset, **poses)
            rest = self.head(shape=shape, static_offset=offset, expr=poses["expr"]).joints[0].numpy()
        turns = np.eye(3)[None].repeat(len(rest), 0)
        for joint, pose in enumerate((poses["rotation"], poses["neck_pose"], poses["jaw_pose"])):
            from flame_fitting.head.rotations import rotation_matrix

            parent = self.head.parents[joint]
            turns[joint] = (turns[parent] if joint else np.eye(3)) @ rotation_matrix(pose)[0].numpy()
        shift = out.joints[0].numpy() - np.einsum("jab,jb->ja", turns, rest)
        return out.vertices[0].numpy(), turns, shift


def visible_landmarks(
    points: Float[ndarray, "68 3"],
    depth: Float[ndarray, "H W"],
    K: Float[ndarray, "3 3"],
    world_to_camera: Float[ndarray, "4 4"],
) -> tuple[Float[ndarray, "68 2"], Bool[ndarray, " 68"]]:
    """Pixels of landmarks, and which of them nothing hides; the surface is the nearest one in 3 x 3 pixels."""
    from scipy.ndimage import maximum_filter

    from flame_fitting.capture.camera import project

    projected = project(points, K, world_to_camera)
    height, width = depth.shape
    column, row = np.floor(projected[:, :2]).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    # beside an outline the background counts as far away
    far = maximum_filter(np.where(depth > 0, depth, np.inf), 3)
    surface = far[row.clip(0, height - 1), column.clip(0, width - 1)]
    return projected[:, :2], inside & (projected[:, 2] < surface + 1e-3 * HIDDEN_MM)


def make_subject(spec: str, rng: np.random.Generator, texture_size: int) -> Subject:
    """Draws a person with the head model `spec` (see `assets.find_head`), which has a texture and landmarks."""
    from flame_fitting.avatar.head_calibration import shipped_embedding
    from flame_fitting.errors import InputError
    from flame_fitting.head.loading import load_head

    head = load_head(spec)
    embedding = shipped_embedding(head, "mediapipe", "textured")
    if embedding is None or head.texture is None:
        raise InputError(f"--head {spec}: has no texture or landmarks of its own. Take the open head: --head open.")
    return draw_subject(head, embedding, rng, texture_size)


def draw_subject(
    head: "HeadModel",
    embedding: "LandmarkEmbedding",
    rng: np.random.Generator,
    texture_size: int,
    shape_sigma: float = SHAPE_SIGMA,
    offset_mm: float = OFFSET_MM,
) -> Subject:
    """Draws a person with a head model that has a texture; one with teeth gets no others. `head` becomes float64."""
    import torch

    from flame_fitting.avatar.demo_head import outside_offsets
    from flame_fitting.avatar.demo_texture import paint_detail
    from flame_fitting.head.mesh_graph import MeshGraph
    from flame_fitting.landmarks.schemes import scheme_named

    for_shape, for_offset, for_skin = rng.spawn(3)
    shape = shape_sigma * for_shape.standard_normal(head.n_shape)
    offset = outside_offsets(head, 1e-3 * offset_mm, for_offset)[None]
    texture = paint_detail(head, texture_size, for_skin)
    head = head.double()
    faces, uv_faces = head.faces.numpy(), head.uv_faces.numpy()
    drawn, (corner, uv) = split_by_index(faces, uv_faces)
    loops = MeshGraph(faces, head.n_vertices).boundary_loops
    template = head.v_template.numpy()
    rest = head(shape=torch.as_tensor(shape), static_offset=torch.as_tensor(offset)).vertices.detach()
    ibug68 = scheme_named(embedding.scheme).ibug68
    landmarks = embedding.points(rest, head.faces)[0, ibug68].numpy()
    return Subject(
        head=head,
        embedding=embedding,
        ibug68=ibug68,
        shape=shape,
        static_offset=offset,
        lids=BLINK * shut_eyes(head, embedding, ibug68, landmarks),
        texture=texture,
        lights=soft_light(),
        mouth=Mouth([]) if head.region_mask("teeth").any() else make_mouth(landmarks[60:68]),
        corners=(drawn, corner, uv),
        base=min(loops, key=lambda loop: template[loop, 1].mean()),
    )


def shut_eyes(
    head: "HeadModel", embedding: "LandmarkEmbedding", ibug68: ndarray, landmarks: Float[ndarray, "68 3"]
) -> Float[ndarray, " E"]:
    """Expression coefficients that bring the lids' landmarks together, with little motion elsewhere.

    Least squares: |gap + G x|^2 + |motion of all vertices but those about the eyes|^2 + a small |x|^2.
    """
    moved = embedding.points(head.exprdirs.permute(2, 0, 1), head.faces)[:, ibug68].numpy()
    above, below = np.array(LIDS).T
    gap = (landmarks[above] - landmarks[below]).reshape(-1)
    slope = (moved[:, above] - moved[:, below]).reshape(head.n_expr, -1).T
    still = ~head.region_mask("eye_region", "eyes", "eyelids").numpy()
    elsewhere = head.exprdirs.numpy()[still].reshape(-1, head.n_expr)
    system = slope.T @ slope + elsewhere.T @ elsewhere / still.sum() + 1e-6 * np.eye(head.n_expr)
    return -np.linalg.solve(system, slope.T @ gap)


def soft_light() -> Float[ndarray, "9 3"]:
    """A wide light from above and in front, a little warm, and much of it from everywhere; at most 1."""
    import torch

    from flame_fitting.render.shading import ambient_light, sh_basis

    lights = 0.8 * ambient_light().double().numpy()
    lights[1:4] += 0.45 * np.array([0.25, 0.45, 0.75])[:, None] * np.array([1.0, 0.98, 0.95])
    normals = np.random.default_rng(0).standard_normal((4096, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return lights / float((sh_basis(torch.as_tensor(normals)).numpy() @ lights).max())
