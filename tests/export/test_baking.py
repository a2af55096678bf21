"""A texture of all pictures of a capture, against the one that they were rendered with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray

from flame_fitting.avatar.lights import CLAY_GREY
from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, move_camera
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.color_correction import srgb_to_linear
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.export.baking.baked import baked_texture, baked_warnings
from flame_fitting.export.baking.blending import blend
from flame_fitting.export.baking.shots import chosen_views
from flame_fitting.fit.filling import filled, painted_base
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.seen_eyes import face_of
from flame_fitting.fit.texture import texel_map
from flame_fitting.fit.tissues import NUMBER, tissue_of_faces
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.report.drawing import head_avatar
from tests.fit.pictures import smooth_texture
from tests.synthetic import add_rendered, known_fit, render_case, similarity
from tests.toy import toy_head

SIZE = 128
PLATE = (255, 0, 0)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    """The toy head; its own texture is the true one, darker."""
    out = toy_head()
    out.texture = np.round(0.6 * smooth_texture(SIZE)).astype(np.uint8)
    return out


@pytest.fixture(scope="module")
def fit(head: HeadModel) -> FitResult:
    return replace(known_fit(head, similarity()), texture=smooth_texture(SIZE))


def places(head: HeadModel, fit: FitResult) -> tuple[ndarray, ndarray]:
    """Where texels are (SIZE, SIZE, 3), head space; which of them are clear of the back, where uv have no seam."""
    texels = texel_map(make_rasterizer("cpu"), head, SIZE)
    uv = head.uv[head.uv_faces]
    narrow = ((uv.amax(1) - uv.amin(1)).amax(-1) < 0.2)[texels.face.clamp_min(0)]
    vertices = torch.as_tensor(fit.vertices_head(head)[0]).float()
    return texels.interpolate(vertices, head.faces).numpy(), (texels.covered & narrow).numpy()


def case(
    folder: Path,
    head: HeadModel,
    fit: FitResult,
    yaws: list[float],
    plate: bool = False,
    geometry: bool = True,
    shading: str = "unlit",
) -> Capture:
    """Pictures of the fit from around, with a red plate that stands 12 mm before the face where it is wanted."""
    avatar = head_avatar(head, fit.vertices_world(head)[0], fit.texture)
    if plate:
        front = fit.vertices_head(head)[0][:, 2].max() + 0.012
        square = 0.03 * np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) + [0, 0, front]
        world = np.linalg.inv(fit.head_from_world)
        part = MeshPart(
            vertices=square @ world[:3, :3].T + world[:3, 3],
            faces=np.array([[0, 1, 2], [0, 2, 3]]),
            normals=np.tile(world[:3, 2] / np.linalg.norm(world[:3, 2]), (4, 1)),
        )
        part.base_color = tuple(np.array([*PLATE, 255.0]) / 255)
        avatar = MeshAvatar(parts=[*avatar.parts, part], path=Path("memory"), file_hash="", format="memory")
    with CaptureWriter(folder, (1.0, 1.0, 1.0), shading, AvatarRecord(file="toy.glb")) as writer:
        for camera, yaw in enumerate(np.radians(yaws)):
            in_head = look_at([0.9 * np.sin(yaw), 0.0, 0.9 * np.cos(yaw)], np.zeros(3), [0.0, 1.0, 0.0])
            matrix = move_camera(in_head, np.linalg.inv(fit.head_from_world))
            add_rendered(writer, avatar, camera, "fit", intrinsics_from_fov(18.0, 256, 256), matrix, shading=shading)
    capture = writer.capture
    if not geometry:
        capture.views = [replace(view, geometry_path=None) for view in capture.views]
    return capture


ALL_AROUND = [float(yaw) for yaw in range(0, 360, 30)]


@pytest.mark.parametrize("geometry", [True, False])
def test_a_known_texture_comes_back(tmp_path: Path, head: HeadModel, fit: FitResult, geometry: bool) -> None:
    out = baked_texture(fit, head, case(tmp_path, head, fit, ALL_AROUND, geometry=geometry), SIZE)
    assert out.shape == (SIZE, SIZE, 3) and out.dtype == np.uint8
    place, clear = places(head, fit)
    level = clear & (np.abs(place[..., 1]) < 0.07)
    error = np.abs(out.astype(int) - smooth_texture(SIZE)).max(-1)[level]
    assert np.median(error) < 3 and np.quantile(error, 0.95) < 10


def test_the_size_is_free_and_detail_grows_with_it(tmp_path: Path, head: HeadModel, fit: FitResult) -> None:
    capture = case(tmp_path, head, fit, ALL_AROUND)
    small, large = (baked_texture(fit, head, capture, size) for size in (SIZE, 1024))
    assert large.shape == (1024, 1024, 3)
    mean = large.reshape(SIZE, 8, SIZE, 8, 3).mean((1, 3))
    place, clear = places(head, fit)
    level = clear & (np.abs(place[..., 1]) < 0.06)
    assert np.median(np.abs(mean - small)[level]) < 3


def test_what_lies_before_the_face_is_not_on_it(tmp_path: Path, head: HeadModel, fit: FitResult) -> None:
    place, clear = places(head, fit)
    behind = clear & (np.abs(place[..., :2]).max(-1) < 0.012) & (place[..., 2] > 0)
    assert behind.sum() > 50

    def red(geometry: bool) -> float:
        folder = tmp_path / str(geometry)
        capture = case(folder, head, fit, [-20.0, 0.0, 20.0, 90.0, 180.0, 270.0], plate=True, geometry=geometry)
        out = baked_texture(fit, head, capture, SIZE).astype(float)
        error = np.abs(out - smooth_texture(SIZE))[behind].mean()
        return float(error)

    assert red(True) < 12, "filled with the painted texture in the tone around"
    assert red(False) > 40, "without depth nothing tells the plate: it is the case"


def test_what_no_view_saw_goes_on_in_the_tone_of_what_is_seen(tmp_path: Path, head: HeadModel, fit: FitResult) -> None:
    out = baked_texture(fit, head, case(tmp_path, head, fit, [-30.0, 0.0, 30.0]), SIZE).astype(float)
    place, clear = places(head, fit)
    back = clear & (place[..., 2] < -0.03) & (np.abs(place[..., 1]) < 0.06)
    truth = smooth_texture(SIZE).astype(float)
    painted = np.abs(head.texture.astype(float) - truth)[back].mean()
    assert np.abs(out - truth)[back].mean() < 0.35 * painted


def test_light_is_divided_out_or_kept(tmp_path: Path, head: HeadModel, fit: FitResult) -> None:
    capture = case(tmp_path, head, fit, ALL_AROUND)
    lights = np.zeros((9, 3), dtype=np.float32)
    lights[0] = 0.5 / 0.282095  # half as bright as the albedo, from everywhere
    lit = replace(fit, lights=lights)
    plain = baked_texture(fit, head, capture, SIZE).astype(float)
    place, clear = places(head, fit)
    level = clear & (np.abs(place[..., 1]) < 0.06) & (plain.max(-1) < 120)
    albedo, shaded = (baked_texture(lit, head, capture, SIZE, kind).astype(float) for kind in ("albedo", "shaded"))
    ratio = float(np.median(albedo[level] / np.maximum(plain[level], 1)))
    assert 1.9 < ratio < 2.1
    assert np.median(np.abs(shaded - plain)[level]) <= 1


def test_few_views_stand_for_many(tmp_path: Path, head: HeadModel, fit: FitResult) -> None:
    capture = case(tmp_path, head, fit, ALL_AROUND)
    steps = 40
    still = {k: np.repeat(v, steps, 0) if k not in ("shape", "static_offset") else v for k, v in fit.parameters.items()}
    long = replace(fit, parameters=still, timestep_id=[f"{t:05d}" for t in range(steps)])
    views = [replace(view, timestep=t, timestep_id="") for t in range(steps) for view in capture.views]
    many = Capture(capture.root, views)
    chosen = chosen_views(long, many, most=24)
    assert len({(view.timestep, view.camera) for view in chosen}) == 24
    assert {view.camera for view in chosen} == set(range(12)) and len({view.timestep for view in chosen}) > 8
    missing = replace(long, landmarks3d={"used": np.arange(steps)[:, None] < 2})
    assert {view.timestep for view in chosen_views(missing, many, most=24)} == {0, 1}


def test_the_best_view_gives_detail_and_all_give_the_tone() -> None:
    covered = np.ones((64, 64), dtype=bool)
    quality = np.ones((3, 64 * 64), dtype=np.float32)
    quality[0] *= 4
    color = np.full((3, 64 * 64, 3), 0.5, dtype=np.float32)
    color[0] += 0.02
    mixed = blend(quality, color, covered)
    assert mixed.weight[0].min() > 0.99 and mixed.weight[1:].max() == 0
    assert mixed.shift[0] is not None and (mixed.shift[0] < 0).all(), "moved towards what the others show"
    # a part that one view alone sees otherwise (a hand) is outvoted
    color[1, :] = 0.9
    quality[:] = 1
    assert np.abs(blend(quality, color, covered).mean - 0.5).max() < 0.05


def hidden(head: HeadModel, gain: ndarray) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """The open head's texture with its skin `gain` times as bright, mouth and eyes not seen: filled, base, tissue."""
    texels = texel_map(make_rasterizer("cpu"), head, 256)
    base = painted_base(head, texels)
    tissue = np.where(texels.covered.numpy(), tissue_of_faces(head)[texels.face.numpy()], -1)
    seen = ((tissue == NUMBER["skin"]) | (tissue == NUMBER["hair"])).astype(np.float32)
    color = np.where(seen[..., None] > 0, np.clip(base * gain, 0, 1), np.float32(1.0)).astype(np.float32)
    return filled(head, texels, color, seen, texels), base, tissue, color


def test_a_hidden_mouth_takes_the_painted_colour_matched_in_gain() -> None:
    head = load_head("open")
    out, base, tissue, color = hidden(head, np.array([0.5, 0.5, 0.5], dtype=np.float32))
    skin, mouth = tissue == NUMBER["skin"], tissue == NUMBER["mouth"]
    np.testing.assert_allclose(out[skin], color[skin], atol=1e-3)
    gain = srgb_to_linear(out[mouth]).mean(0) / srgb_to_linear(base[mouth]).mean(0)
    # darker, by less than the skin; as red as it is painted
    assert (gain < 0.95).all() and (gain > 0.3).all() and np.ptp(gain) < 0.1
    again, *_ = hidden(head, np.ones(3, dtype=np.float32))
    assert np.abs(again - base)[mouth].max() < 0.02, "painted as it is where the skin is as painted"


def test_eyes_that_nothing_shows_are_the_painted_ones() -> None:
    head = load_head("open")
    out, base, tissue, _ = hidden(head, np.array([0.9, 0.8, 0.7], dtype=np.float32))
    eyes = (tissue == NUMBER["sclera"]) | (tissue == NUMBER["iris"])
    # none of the skin's tint, and white stays white
    ratio = srgb_to_linear(out[eyes]).mean(0) / srgb_to_linear(base[eyes]).mean(0)
    assert np.ptp(ratio) < 0.02 and ratio.min() > 0.75


def test_hair_beside_it_does_not_darken_the_skin() -> None:
    """A hidden neck under black hair has the skin's colour, up to the hairline."""
    head = load_head("open")
    texels = texel_map(make_rasterizer("cpu"), head, 256)
    base = painted_base(head, texels)
    face = texels.face.clamp_min(0).numpy()
    tissue = tissue_of_faces(head)[face]
    neck = texels.covered.numpy() & head.face_mask("neck").numpy()[face] & (tissue == NUMBER["skin"])
    color = np.where((tissue == NUMBER["hair"])[..., None], 0.05 * base, base).astype(np.float32)
    out = filled(head, texels, color, (~neck).astype(np.float32), texels)
    assert np.abs(out - base)[neck].mean() < 0.02


def eyes(iris: tuple[float, float, float] | None) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """The open head's texture with eyes seen between brown lids, which lie over their rims too: filled, base, the iris'
    and the lids' texels. The iris has a colour of its own; None: shut lids are all that is seen."""
    head = load_head("open")
    texels = texel_map(make_rasterizer("cpu"), head, 512)
    base = painted_base(head, texels)
    tissue = np.where(texels.covered.numpy(), tissue_of_faces(head)[texels.face.numpy()], -1)
    color, seen = base.copy(), np.isin(tissue, (NUMBER["skin"], NUMBER["hair"]))
    inner, lids = np.zeros(seen.shape, dtype=bool), np.zeros(seen.shape, dtype=bool)
    rows, cols = np.indices(seen.shape)
    for name in ("left_eyeball", "right_eyeball"):
        one = face_of(head, texels, name) & (tissue == NUMBER["iris"])
        v, u = rows[one].mean(), cols[one].mean()
        radius = np.sqrt(one.sum() / np.pi)
        gap = face_of(head, texels, name) & (np.abs(rows - v) < 1.1 * radius) & (np.abs(cols - u) < 1.6 * radius)
        over = gap & (np.abs(rows - v) > radius)
        pupil = np.hypot(rows - v, cols - u) < 0.3 * radius
        if iris is not None:
            color[one & ~pupil] = iris
        color[over if iris is not None else gap] = (0.35, 0.2, 0.15)
        inner |= one & (np.hypot(rows - v, cols - u) < 0.5 * radius) & ~pupil
        seen, lids = seen | gap, lids | over
    return filled(head, texels, color, seen.astype(np.float32), texels), base, inner, lids


def test_eyes_that_are_well_seen_keep_their_own_iris_without_lids() -> None:
    out, _, iris, lids = eyes((0.1, 0.3, 0.6))
    assert np.abs(out[iris] - (0.1, 0.3, 0.6)).max() < 0.02
    assert np.abs(out[lids] - (0.35, 0.2, 0.15)).max(axis=-1).min() > 0.1


def test_lids_on_eyeballs_are_no_eyes() -> None:
    out, base, iris, lids = eyes(None)
    assert np.abs(out - base)[iris].mean() < 0.1 and np.abs(out - base)[lids].mean() < 0.1


def test_a_head_of_clay_has_eyes_and_mouth_of_clay() -> None:
    head = load_head("open")
    texels = texel_map(make_rasterizer("cpu"), head, 256)
    tissue = np.where(texels.covered.numpy(), tissue_of_faces(head)[texels.face.numpy()], -1)
    seen = np.isin(tissue, (NUMBER["skin"], NUMBER["hair"])).astype(np.float32)
    out = filled(head, texels, np.full((256, 256, 3), 0.45, dtype=np.float32), seen, texels)
    assert np.abs(out[texels.covered.numpy()] - 0.45).max() < 0.02


@pytest.mark.parametrize("has_lights", [False, True])
def test_clay_without_its_light_is_one_grey(tmp_path: Path, head: HeadModel, fit: FitResult, has_lights: bool) -> None:
    """The renderer's light and shadows are known and of no colour; what a fit made of them changes nothing."""
    lights = np.zeros((9, 3), dtype=np.float32)
    lights[0] = 0.9 / 0.282095
    fit = replace(fit, lights=lights if has_lights else None)
    capture = case(tmp_path, head, fit, [-40.0, 0.0, 40.0], shading="clay")
    albedo = baked_texture(fit, head, capture, SIZE)
    assert (albedo == round(255 * CLAY_GREY)).all() and albedo.shape == (SIZE, SIZE, 3)
    shaded = baked_texture(fit, head, capture, SIZE, "shaded")
    assert shaded.std() > 5  # light and shadows


def test_pictures_of_clay_are_warned_of(tmp_path: Path, head: HeadModel, fit: FitResult) -> None:
    capture = render_case(tmp_path, head, fit, 2, 1, 32)
    assert baked_warnings(head, capture) == []
    clay = replace(capture, shading="clay")
    (warning,) = baked_warnings(head, clay, "shaded")
    assert "clay, whose light and shadows are in them" in warning
    (warning,) = baked_warnings(head, clay)
    assert "no colours" in warning and "--shading unlit" in warning and "--bake shaded" in warning
    assert baked_warnings(head, replace(capture, shading="clay", views=[])) == []  # nothing is baked
