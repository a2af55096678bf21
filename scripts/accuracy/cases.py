"""Heads of known truth under the conditions of real avatars, each as an ordinary capture folder. All from seeds."""

import dataclasses
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.files import atomic_write

from .paint import painted_texture, sampled, subdivided

if TYPE_CHECKING:
    from flame_fitting.avatar.demo_head import DemoHead
    from flame_fitting.avatar.demo_remesh import Remeshed
    from flame_fitting.capture.capture import Capture
    from flame_fitting.head.embedding import LandmarkEmbedding
    from flame_fitting.head.model import HeadModel

STANDIN = "standin/flame2023_standin.pkl"
"""A model in FLAME's format, in the test data."""
EMBEDDING = "standin/landmark_embedding_with_eyes.npy"
"""iBUG-68 points of models of FLAME's topology, in the test data."""
TEXTURE_SIZE = 2048
HELDOUT = 8
OFFSET_MM = 2.0
FOV = 25.0
HIDDEN_MM = 3.0
"""A point so far behind the depth map is hidden."""
FACING = 0.25
"""Least cosine between a landmark's normal and the view at which a detector is taken to find it."""
JAWLINE = slice(0, 17)


@dataclass(frozen=True)
class Case:
    """One capture of known truth."""

    name: str
    kind: str
    """What of the bare case is changed; the row's heading in tables."""
    seed: int
    head: str = "open"
    """open, or a FLAME-format file in the test data."""
    views: int = 16
    size: int = 512
    occluder: Literal["hair", "glasses", "body"] | None = None
    colour: Literal["texture", "vertex", "clay"] = "texture"
    background: Literal["white", "skin"] = "white"
    picture_noise: float = 0.0
    """Standard deviation of noise in the fit views, sRGB; held-out views stay clean."""
    landmark_noise_px: float = 1.5
    """Standard deviation of each coordinate, in pixels of a 512 px picture."""
    landmarks: Literal["synthetic", "whole", "detected"] = "synthetic"
    """synthetic: the truth's 51 inner iBUG points where they are seen, without the jaw line. whole: all 68 in each of
    the `rig.LANDMARK_VIEWS` views nearest to the front, hidden ones too. detected: a detector's."""
    embedding: str = ""
    """File of FLAME's landmarks in the test data (--landmark-embedding); empty: calibrated."""
    rig: bool = False
    """A calibrated rig's: cameras in metres (--scale fixed), upright near the origin, under spherical-harmonic light;
    offsets that no component expresses. VHAP's own kind of input."""
    expr_sigma: float = 0.5
    like: str = ""
    """The bare case of the same head."""

    @property
    def textured(self) -> bool:
        """Whether its colours vary over the face."""
        return self.colour != "clay"


def all_cases() -> list[Case]:
    """The bench, in the table's order."""
    open_head = [Case(f"bare_{seed}", "bare", seed) for seed in range(4)]
    standin = [Case(f"standin_{s}", "bare, FLAME format", s, STANDIN, expr_sigma=0.3) for s in range(2)]
    of_vhap = {"landmarks": "whole", "embedding": EMBEDDING, "rig": True}
    vhap = [Case(f"vhap_{s}", "VHAP's kind", s, STANDIN, expr_sigma=0.3, **of_vhap) for s in range(3)]  # type: ignore[arg-type]
    bare, second, flame = open_head[0], open_head[1], standin[0]

    def other(base: Case, name: str, kind: str, **changes: object) -> Case:
        return dataclasses.replace(base, name=name, kind=kind, like=base.name, **changes)  # type: ignore[arg-type]

    return [
        *open_head,
        *standin,
        *vhap,
        other(bare, "hair_0", "hair", occluder="hair"),
        other(flame, "hair_standin_0", "hair, FLAME format", occluder="hair"),
        other(bare, "glasses_0", "glasses", occluder="glasses"),
        other(second, "glasses_1", "glasses", occluder="glasses"),
        other(bare, "body_0", "body", occluder="body"),
        other(bare, "clay_0", "clay", colour="clay"),
        other(bare, "vertex_0", "vertex colours", colour="vertex"),
        other(bare, "skin_background_0", "background of the skin's colour", background="skin"),
        other(bare, "views8_0", "8 views", views=8),
        other(bare, "views32_0", "32 views", views=32),
        other(bare, "views64_0", "64 views", views=64),
        other(bare, "size256_0", "256 px", size=256),
        other(bare, "size1024_0", "1024 px", size=1024),
        other(bare, "noise_0", "noisy pictures", picture_noise=0.03),
        other(bare, "landmarks3px_0", "landmark noise 3 px", landmark_noise_px=3.0),
        other(bare, "detected_0", "detected landmarks", landmarks="detected"),
        other(second, "detected_1", "detected landmarks", landmarks="detected"),
    ]


@dataclass(frozen=True)
class Places:
    """Where things that are not made from seeds lie."""

    data: Path
    """Test data, with the stand-in model."""
    landmarks: Path | None = None
    """Folder of detected landmarks, `<case>.npz`."""
    model_path: Path | None = None
    """Weights of the landmark detector."""

    def head(self, case: Case) -> str:
        """What --head takes for a case."""
        return "open" if case.head == "open" else str(self.data / case.head)

    def embedding(self, case: Case) -> Path | None:
        """What --landmark-embedding takes for a case."""
        return self.data / case.embedding if case.embedding else None

    def missing(self, case: Case) -> str:
        """Why a case cannot be made here; empty if it can."""
        for file in (case.head if case.head != "open" else "", case.embedding):
            if file and not (self.data / file).is_file():
                return f"{self.data / file} is not there"
        if case.landmarks == "detected" and self.landmarks is not None:
            path = self.landmarks / f"{case.name}.npz"
            return "" if path.is_file() else f"{path} is not there"
        return ""


def default_data() -> Path:
    """The test data, as the tests find it."""
    root = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("FLAME_FITTING_TEST_DATA", root.parent / "shared"))


@dataclass(eq=False)
class Subject:
    """A true head and its own mesh."""

    head: "HeadModel"
    demo: "DemoHead"
    surface: "Remeshed"
    picture: ndarray
    """(S, S, 3) uint8."""


def build(case: Case, folder: Path, places: Places | None = None) -> "Capture":
    """Writes `folder/capture` (with landmarks2d) and `folder/avatar` (ground_truth.npz, avatar.npz, avatar.glb)."""
    places = places or Places(default_data())
    subject = make_subject(places.head(case), case.seed, case.expr_sigma, places.model_path, rig=case.rig)
    return build_subject(case, subject, folder, places)


def build_subject(case: Case, subject: "Subject", folder: Path, places: Places) -> "Capture":
    """The same for a subject of one's own."""
    from flame_fitting.capture.opening import open_capture

    avatar = make_avatar(case, subject)
    kind = "clay" if case.colour == "clay" else "textured"
    embedding = _embedding(subject.head, kind, places.model_path, places.embedding(case))
    _write_avatar(folder / "avatar", case, subject, avatar, embedding)
    _render(case, subject, avatar, folder / "capture")
    capture = open_capture(folder / "capture")
    if case.landmarks != "detected":
        _write_synthetic(case, capture, subject, embedding)
    elif places.landmarks is not None:
        target = folder / "capture" / "landmarks2d" / "mediapipe.npz"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((places.landmarks / f"{case.name}.npz").read_bytes())
    else:
        from flame_fitting.detect_landmarks import DetectConfig, detect

        detect(DetectConfig(folder / "capture", model_path=places.model_path))
    return capture


@lru_cache(maxsize=2)
def make_subject(
    spec: str,
    seed: int,
    expr_sigma: float,
    model_path: Path | None = None,
    texture_size: int = TEXTURE_SIZE,
    rig: bool = False,
) -> Subject:
    """Draws a head, gives it triangles of its own and paints it."""
    from flame_fitting.avatar.demo_head import draw_head
    from flame_fitting.avatar.demo_remesh import remesh
    from flame_fitting.avatar.demo_texture import paint_detail
    from flame_fitting.head.loading import load_head

    head = load_head(spec, add_teeth=False)
    for_head, for_mesh, for_skin = np.random.default_rng(seed).spawn(3)
    demo = draw_head(head, 0.9, expr_sigma, 1e-3 * OFFSET_MM, for_head, rig)
    if head.texture is None:
        if rig:
            from .rig import plain_colors

            head.texture = painted_texture(head, plain_colors(head))
        else:
            from flame_fitting.avatar.head_calibration import painted_colors

            head.texture = painted_texture(head, painted_colors(head, _embedding(head, "clay", model_path)))
    keep = head.region_mask("ears", "lips_tight", "lip_inside", "eyelids").numpy()
    uv, uv_faces = head.uv.numpy().astype(np.float64), head.uv_faces.numpy()
    surface = remesh(demo.vertices_world, head.faces.numpy(), uv, uv_faces, for_mesh, keep)
    return Subject(head, demo, surface, paint_detail(head, texture_size, for_skin))


def make_avatar(case: Case, subject: Subject) -> MeshAvatar:
    """The avatar in its own coordinates: the head's mesh, and what stands before it."""
    from flame_fitting.avatar.mesh_avatar import avatar_from_arrays
    from flame_fitting.capture.similarity import apply_similarity, invert_similarity

    from .occluders import occluder

    surface = subject.surface
    vertices, faces, uv = surface.vertices, surface.faces, surface.uv
    if case.colour == "vertex":
        # a scan with colours at its vertices is dense
        for _ in range(2):
            vertices, faces, uv = subdivided(vertices, faces, uv)
        avatar = avatar_from_arrays(vertices, faces, vertex_colors=sampled(subject.picture, uv), name="head")
    elif case.colour == "clay":
        avatar = avatar_from_arrays(vertices, faces, name="head")
    else:
        avatar = avatar_from_arrays(vertices, faces, uv, texture=subject.picture, name="head")
    if case.occluder is not None:
        to_world = invert_similarity(subject.demo.head_from_world)
        in_head = apply_similarity(subject.demo.head_from_world, subject.demo.vertices_world)
        turn = to_world[:3, :3] / np.cbrt(np.linalg.det(to_world[:3, :3]))
        for part in occluder(case.occluder, subject.head, in_head, np.random.default_rng([case.seed, 77])):
            part.vertices = apply_similarity(to_world, part.vertices)
            part.normals = None if part.normals is None else part.normals @ turn.T
            avatar.parts.append(part)
    return avatar


def rough_frame(case: Case, head_from_world: Float[ndarray, "4 4"]) -> Float[ndarray, "4 4"]:
    """The frame that views are planned in: the true one, as far off as a found one is (2 degrees, 4 mm, 2 %)."""
    from scipy.spatial.transform import Rotation

    from flame_fitting.capture.similarity import similarity_matrix

    rng = np.random.default_rng([case.seed, 11])
    turn = rng.standard_normal(3)
    turn = Rotation.from_rotvec(np.radians(2.0) * turn / np.linalg.norm(turn)).as_matrix()
    shift = rng.standard_normal(3)
    error = similarity_matrix(1.0 + 0.02 * rng.uniform(-1, 1), turn, 0.004 * shift / np.linalg.norm(shift))
    return error @ head_from_world


def true_landmarks(head: "HeadModel", embedding: "LandmarkEmbedding", vertices: ndarray) -> Float[ndarray, "N 3"]:
    """The embedding's points on the true head (V, 3); NaN where it has none."""
    import torch

    return embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()


def synthetic_landmarks(
    case: Case, capture: "Capture", subject: Subject, embedding: "LandmarkEmbedding"
) -> Float[ndarray, "1 C N 3"]:
    """Projections of the truth's inner iBUG points into the fit views that see them, with noise; the rest is NaN."""
    from flame_fitting.capture.camera import project
    from flame_fitting.landmarks.schemes import scheme_named
    from flame_fitting.maths.normals import face_normals

    vertices, faces = subject.demo.vertices_world, subject.head.faces.numpy()
    index = scheme_named(embedding.scheme).inner
    points = true_landmarks(subject.head, embedding, vertices)[index]
    normals = face_normals(vertices, faces)[0][np.maximum(embedding.face_index[index], 0)]
    hidden = HIDDEN_MM / subject.demo.mm_per_unit
    out = np.full((1, len(capture.cameras), len(embedding.face_index), 3), np.nan, dtype=np.float32)
    for view in capture.views_of("fit"):
        # one draw for each view and point: occluders change who is seen, not the noise of the others
        rng = np.random.default_rng([case.seed, 23, view.camera])
        noise = rng.standard_normal((len(index), 2)) * case.landmark_noise_px * view.height / 512
        pixels = project(points, view.K, view.world_to_camera)
        eye = np.linalg.inv(view.world_to_camera)[:3, 3]
        if _from_behind(subject.demo.head_from_world, eye):
            continue
        toward = eye - points
        facing = (normals * toward).sum(1) / np.linalg.norm(toward, axis=1)
        depth = capture.geometry(view)[0]
        column, row = (np.floor(np.nan_to_num(pixels[:, k], nan=-1)).astype(int) for k in (0, 1))
        inside = (column >= 0) & (column < view.width) & (row >= 0) & (row < view.height)
        surface = depth[np.clip(row, 0, view.height - 1), np.clip(column, 0, view.width - 1)]
        # a surface well behind is seen past the point, not at it
        slack = hidden + 4 * pixels[:, 2] / view.K[0, 0]
        seen = np.isfinite(points).all(1) & inside & (facing > FACING)
        seen &= (pixels[:, 2] < surface + hidden) & (pixels[:, 2] > surface - slack)
        column_of = capture.cameras.index(view.camera)
        out[0, column_of, index[seen]] = np.concatenate([pixels[:, :2] + noise, np.ones((len(index), 1))], axis=1)[seen]
    return out


def _from_behind(head_from_world: Float[ndarray, "4 4"], eye: Float[ndarray, " 3"], degrees: float = 95.0) -> bool:
    """Whether a camera looks from so far behind that no detector finds a face."""
    direction = head_from_world[:3, :3] @ eye + head_from_world[:3, 3]
    return bool(direction[2] < np.cos(np.radians(degrees)) * np.linalg.norm(direction))


def _write_synthetic(case: Case, capture: "Capture", subject: Subject, embedding: "LandmarkEmbedding") -> None:
    from flame_fitting.landmarks.files import Landmarks2D, write_landmarks

    if case.landmarks == "whole":
        from .rig import whole_landmarks

        points = whole_landmarks(case, capture, subject, embedding)
    else:
        points = synthetic_landmarks(case, capture, subject, embedding)
    write_landmarks(capture, Landmarks2D(points, embedding.scheme, "mediapipe"))  # of no version: nothing detects anew


def _render(case: Case, subject: Subject, avatar: MeshAvatar, folder: Path) -> None:
    from flame_fitting.avatar.head_calibration import head_frame
    from flame_fitting.avatar.view_planning import plan_views
    from flame_fitting.capture.avatar_record import AvatarRecord
    from flame_fitting.capture.files import CaptureWriter

    from .rig import draw_lights, lit_picture, ring_views

    frame = rough_frame(case, subject.demo.head_from_world)
    rotation = frame[:3, :3] / np.cbrt(np.linalg.det(frame[:3, :3]))
    if case.rig:
        planned = ring_views(frame, case.views, HELDOUT, case.size, FOV, head_frame(subject.head))
    else:
        planned = plan_views(frame, case.views, HELDOUT, case.size, FOV, head_frame(subject.head))
    if case.landmarks != "detected":
        planned = [view for view in planned if view.role != "landmark"]
    shading = "clay" if case.colour == "clay" else "unlit"
    landmark_shading = shading if case.landmarks != "detected" or shading == "clay" else "lit"
    lights = draw_lights(np.random.default_rng([case.seed, 41])) if case.rig else None
    background = _background(case, subject)
    about = AvatarRecord(head_from_world=frame, landmark_shading=landmark_shading)
    with CaptureWriter(folder, background, "lit" if case.rig else shading, about, force=True) as writer:
        for number, view in enumerate(planned):
            drawn = avatar.draw(
                view.K[None],
                view.world_to_camera[None],
                view.width,
                view.height,
                landmark_shading if view.role == "landmark" else shading,
                background,
                light_rotation=rotation,
            )
            assert drawn.image is not None and drawn.alpha is not None
            assert drawn.depth is not None and drawn.normal is not None
            image, alpha = drawn.image[0], drawn.alpha[0]
            if lights is not None:
                image, alpha = lit_picture(avatar, view, lights, subject.demo.head_from_world, background)
            if view.role == "fit" and case.picture_noise:
                rng = np.random.default_rng([case.seed, 31, number])
                image = np.clip(image + case.picture_noise * rng.standard_normal(image.shape), 0, 1)
            writer.add(
                timestep=0,
                camera=number,
                role=view.role,
                K=view.K,
                world_to_camera=view.world_to_camera,
                image=image.astype(np.float32),
                alpha=alpha,
                depth=drawn.depth[0],
                normal=drawn.normal[0],
            )


def _background(case: Case, subject: Subject) -> tuple[float, float, float]:
    if case.background == "white":
        return 1.0, 1.0, 1.0
    on_face = subject.head.region_mask("face").numpy()[subject.head.faces.numpy()].all(1)[subject.surface.source_face]
    red, green, blue = sampled(subject.picture, subject.surface.uv)[on_face].mean(0)
    return float(red), float(green), float(blue)


def _write_avatar(
    folder: Path, case: Case, subject: Subject, avatar: MeshAvatar, embedding: "LandmarkEmbedding"
) -> None:
    demo, head = subject.demo, subject.head
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "ground_truth.npz") as temporary:
        np.savez_compressed(
            temporary,
            vertices=demo.vertices_world,
            faces=head.faces.numpy(),
            shape=demo.shape,
            expr=demo.expr,
            neck_pose=demo.neck_pose,
            jaw_pose=demo.jaw_pose,
            eyes_pose=demo.eyes_pose,
            static_offset=demo.static_offset,
            head_from_world=demo.head_from_world,
            mm_per_unit=np.array(demo.mm_per_unit),
            head_name=np.array(head.name),
            head_hash=np.array(head.file_hash),
            landmarks=true_landmarks(head, embedding, demo.vertices_world),
            face_index=embedding.face_index,
            barycentric=embedding.barycentric,
        )
    # one mesh, for methods that know nothing of parts
    with atomic_write(folder / "mesh.npz") as temporary:
        np.savez(temporary, vertices=avatar.vertices, faces=avatar.faces)
    with atomic_write(folder / "avatar.glb") as temporary:
        temporary.write_bytes(glb_of(avatar))


def glb_of(avatar: MeshAvatar) -> bytes:
    """The avatar as a binary glTF file."""
    import io

    import trimesh
    from PIL import Image

    def visual(part: MeshPart) -> Any:
        material = trimesh.visual.material.PBRMaterial(metallicFactor=0.0, roughnessFactor=0.9)
        if part.texture is not None:
            stream = io.BytesIO()
            Image.fromarray(part.texture[..., :3]).save(stream, format="JPEG", quality=93, subsampling=0)
            material.baseColorTexture = Image.open(stream)
            return trimesh.visual.TextureVisuals(uv=part.uv, material=material)
        if part.vertex_colors is not None:
            return trimesh.visual.ColorVisuals(vertex_colors=to_uint8(part.vertex_colors))
        return trimesh.visual.TextureVisuals(material=material)

    scene = trimesh.Scene()
    for number, part in enumerate(avatar.parts):
        mesh = trimesh.Trimesh(part.vertices, part.faces, process=False)
        mesh.visual = visual(part)
        scene.add_geometry(mesh, node_name=f"{part.name}_{number}", geom_name=f"{part.name}_{number}")
    content = scene.export(file_type="glb")
    assert isinstance(content, bytes)
    return content


@lru_cache(maxsize=4)
def _embedding(
    head: "HeadModel", kind: str, model_path: Path | None, licensed: Path | None = None
) -> "LandmarkEmbedding":
    from flame_fitting.avatar.head_calibration import landmark_embedding
    from flame_fitting.landmarks.registry import Settings, make_detector

    return landmark_embedding(head, make_detector("mediapipe", Settings(model_path)), kind, licensed=licensed)
