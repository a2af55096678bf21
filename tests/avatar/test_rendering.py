import numpy as np
import pytest
import trimesh

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar, avatar_from_arrays
from flame_fitting.avatar.render_scene import ambient_occlusion, mip_levels
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project, unproject
from tests.avatar.glb_builder import QUAD, QUAD_FACES, textured_quad

SIZE = 64
ORIGIN, UP = np.zeros(3), np.array([0.0, 1.0, 0.0])


def front_camera(distance: float = 4.0, fov: float = 40.0, size: int = SIZE, eye=(0, 0, 1)):
    """K (1, 3, 3) and world_to_camera (1, 4, 4) of a camera that looks at the origin."""
    eye = np.asarray(eye, dtype=float) * distance
    return intrinsics_from_fov(float(fov), size, size)[None], look_at(eye, ORIGIN, UP)[None]


def square(z: float = 0.0, scale: float = 1.0, **options) -> MeshPart:
    return MeshPart(QUAD.astype(np.float64) * scale + [0, 0, z], QUAD_FACES.astype(np.int64), **options)


def of(*parts: MeshPart) -> MeshAvatar:
    return MeshAvatar(list(parts), __import__("pathlib").Path("memory"), "", "memory")


def test_picture_is_upright_and_not_mirrored(tmp_path):
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[1, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    pixels = pixels.repeat(16, axis=0).repeat(16, axis=1)
    avatar = load_avatar(textured_quad(pixels).save(tmp_path / "a.glb"))
    image = avatar.draw(*front_camera(), SIZE, SIZE, background=(1, 1, 1)).image[0]
    high, low = 22, 42  # rows and columns inside the quarters
    np.testing.assert_allclose(image[:, high, high], (1, 0, 0), atol=0.01)
    np.testing.assert_allclose(image[:, high, low], (0, 1, 0), atol=0.01)
    np.testing.assert_allclose(image[:, low, high], (0, 0, 1), atol=0.01)
    np.testing.assert_allclose(image[:, low, low], (0, 0, 0), atol=0.01)
    np.testing.assert_allclose(image[:, 1, 1], (1, 1, 1))


def test_silhouette_depth_and_normal_of_a_sphere_match_the_closed_form():
    sphere = trimesh.creation.icosphere(subdivisions=5, radius=0.7)
    rng = np.random.default_rng(0)
    center = np.array([0.4, -0.2, 0.1])
    avatar = avatar_from_arrays(np.array(sphere.vertices) + center, np.array(sphere.faces))
    eyes = rng.normal(size=(3, 3))
    eyes = center + 3.0 * eyes / np.linalg.norm(eyes, axis=1, keepdims=True)
    world_to_camera = look_at(eyes, center + 0.1, UP)
    K = np.stack([intrinsics_from_fov(35.0, 80, 60)] * 3)
    K[:, 0, 2] += 5.3  # an off-centre principal point
    views = avatar.draw(K, world_to_camera, 80, 60)
    columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    for view in range(3):
        near = unproject(pixels, np.ones(len(pixels)), K[view], world_to_camera[view])
        direction = near - eyes[view]  # depth 1 along the camera's z
        offset = eyes[view] - center
        a, b, c = (direction**2).sum(1), (direction * offset).sum(1), (offset**2).sum() - 0.49
        root = b**2 - a * c
        hit = (root > 0).reshape(60, 80)
        depth = ((-b - np.sqrt(np.maximum(root, 0))) / a).reshape(60, 80)
        assert ((views.depth[view] > 0) != hit).sum() <= 12
        inside = hit & (views.depth[view] > 0) & (root.reshape(60, 80) > 0.02)
        assert inside.sum() > 300
        np.testing.assert_allclose(views.depth[view][inside], depth[inside], atol=2e-3)
        point = eyes[view] + direction.reshape(60, 80, 3)[inside] * depth[inside][:, None]
        expected = (point - center) / 0.7
        np.testing.assert_allclose(views.normal[view][inside], expected, atol=0.02)
        assert abs(views.alpha[view].sum() - hit.sum()) < 0.02 * hit.sum()
        assert (views.normal[view][~hit & (views.depth[view] == 0)] == 0).all()


def test_depth_unprojects_onto_the_surface_and_projects_back():
    avatar = of(square())
    K, world_to_camera = front_camera(eye=(0.3, 0.2, 0.93))
    views = avatar.draw(K, world_to_camera, SIZE, SIZE, outputs=("depth", "normal"))
    assert views.image is None and views.alpha is None
    rows, columns = np.nonzero(views.depth[0])
    pixels = np.stack([columns, rows], axis=1) + 0.5
    points = unproject(pixels, views.depth[0][rows, columns], K[0], world_to_camera[0])
    np.testing.assert_allclose(points[:, 2], 0, atol=1e-6)
    assert np.abs(points[:, :2]).max() < 1.0
    np.testing.assert_allclose(project(points, K[0], world_to_camera[0])[:, :2], pixels, atol=1e-4)


def test_both_sides_are_drawn_and_normals_face_the_camera():
    front, back = front_camera(), front_camera(eye=(0, 0, -1))
    for part in (square(), MeshPart(square().vertices, square().faces[:, ::-1].copy())):
        for (K, world_to_camera), sign in ((front, 1), (back, -1)):
            views = of(part).draw(K, world_to_camera, SIZE, SIZE)
            assert views.alpha[0, 32, 32] == 1
            np.testing.assert_allclose(views.normal[0, 32, 32], (0, 0, sign), atol=1e-6)


def test_mixed_winding_gives_the_same_smooth_normals():
    sphere = trimesh.creation.icosphere(subdivisions=3)
    faces = np.array(sphere.faces)
    mixed = faces.copy()
    mixed[::2] = mixed[::2, ::-1]
    K, world_to_camera = front_camera()
    one, two = (
        avatar_from_arrays(np.array(sphere.vertices), f).draw(K, world_to_camera, SIZE, SIZE) for f in (faces, mixed)
    )
    np.testing.assert_array_equal(one.depth, two.depth)
    assert (np.einsum("bhwc,bhwc->bhw", one.normal, two.normal)[one.depth > 0] > 0.98).all()


def test_alpha_mask_cuts_holes_and_shows_what_is_behind():
    texture = np.full((8, 8, 4), 255, np.uint8)
    texture[:, 4:, 3] = 0
    texture[:, 4:, :3] = 0  # black where hidden, as exporters write it
    texture[:, :4, :3] = (0, 255, 0)
    uv = (QUAD[:, :2] + 1) / 2
    hair = square(0.5, uv=uv.astype(np.float64), texture=texture, alpha_mode="mask", wrap=("clamp", "clamp"))
    skin = square(0.0, 0.5, base_color=(1.0, 0.0, 0.0, 1.0))
    views = of(hair, skin).draw(*front_camera(), SIZE, SIZE, background=(0, 0, 1))
    image = views.image[0]
    np.testing.assert_allclose(image[:, 32, 28], (0, 1, 0), atol=0.01)
    np.testing.assert_allclose(image[:, 32, 37], (1, 0, 0), atol=0.01)
    np.testing.assert_allclose(image[:, 32, 50], (0, 0, 1), atol=0.01)
    assert views.depth[0, 32, 28] == pytest.approx(3.5, abs=1e-5)
    assert views.depth[0, 32, 37] == pytest.approx(4.0, abs=1e-5)
    # The edge of the hair is green, never darkened by hidden texels.
    row = image[:, 32, 14:32]
    assert (row[0] < 0.01).all() and (row[1] > 0.98).all()
    opaque = of(square(0.5, uv=hair.uv, texture=texture)).draw(*front_camera(), SIZE, SIZE)
    assert opaque.alpha[0, 32, 37] == 1


def test_alpha_is_the_covered_share():
    K, world_to_camera = front_camera()
    view = of(square()).draw(K, world_to_camera, SIZE, SIZE, supersample=4, outputs=("alpha",))
    corner = project(np.array([[1.0, 1.0, 0.0]]), K[0], world_to_camera[0])[0, :2]
    width = 2 * (corner[0] - SIZE / 2)
    assert view.alpha.sum() == pytest.approx(width**2, rel=0.02)
    assert set(np.unique(view.alpha * 16).tolist()) <= set(range(17))


def test_neighbouring_triangles_leave_no_crack():
    # A fan whose edges run exactly through pixel centres.
    size = 33
    angles = np.linspace(0, 2 * np.pi, 17)[:-1]
    rim = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1) * 3
    vertices = np.concatenate([[[0.0, 0.0, 0.0]], rim])
    faces = np.stack([np.zeros(16, np.int64), np.arange(16) + 1, (np.arange(16) + 1) % 16 + 1], axis=1)
    K, world_to_camera = front_camera(size=size)
    view = avatar_from_arrays(vertices, faces).draw(K, world_to_camera, size, size, supersample=1)
    assert view.alpha.min() == 1


def test_geometry_behind_the_camera_is_not_drawn_and_does_not_disturb():
    sphere = trimesh.creation.icosphere(subdivisions=2)
    behind = MeshPart(np.array(sphere.vertices) + [0, 0, 9], np.array(sphere.faces))
    # A strip that starts before the camera and ends behind it, below the line of sight.
    strip = MeshPart(
        np.array([[-1, -2, 0], [1, -2, 0], [1, -2, 9], [-1, -2, 9]], dtype=np.float64), QUAD_FACES.astype(np.int64)
    )
    K, world_to_camera = front_camera(fov=80)
    alone = of(square()).draw(K, world_to_camera, SIZE, SIZE)
    both = of(square(), behind, strip).draw(K, world_to_camera, SIZE, SIZE)
    np.testing.assert_array_equal(alone.depth[0, :32], both.depth[0, :32])
    rows, columns = np.nonzero((both.depth[0] > 0) & (alone.depth[0] == 0))
    points = unproject(np.stack([columns, rows], axis=1) + 0.5, both.depth[0][rows, columns], K[0], world_to_camera[0])
    assert len(points) > 50
    np.testing.assert_allclose(points[:, 1], -2, atol=1e-5)
    assert both.depth.max() < 4.5


def test_small_checkers_average_to_grey():
    checker = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    texture = np.stack([checker] * 3 + [np.full_like(checker, 255)], axis=2)
    part = square(uv=((QUAD[:, :2] + 1) / 2).astype(np.float64), texture=texture)
    image = of(part).draw(*front_camera(), SIZE, SIZE).image[0, :, 20:44, 20:44]
    np.testing.assert_allclose(image, 0.5, atol=0.03)


@pytest.mark.parametrize(("wrap", "expected"), [("repeat", 1.0), ("clamp", 0.0), ("mirror", 0.0)])
def test_texture_outside_of_the_unit_square(wrap, expected):
    texture = np.zeros((16, 16, 4), np.uint8)
    texture[:, :8] = 255  # white left, black right
    uv = (QUAD[:, :2] + 1) / 2
    part = square(uv=(uv + [1.0, 0.0]).astype(np.float64), texture=texture, wrap=(wrap, wrap))
    image = of(part).draw(*front_camera(), SIZE, SIZE).image[0]
    assert image[0, 32, 20] == pytest.approx(expected, abs=0.02)


def test_factor_vertex_colours_and_texture_are_multiplied():
    texture = np.full((4, 4, 4), 128, np.uint8)
    colors = np.tile([0.5, 1.0, 0.25, 1.0], (4, 1))
    part = square(
        uv=((QUAD[:, :2] + 1) / 2).astype(np.float64),
        texture=texture,
        vertex_colors=colors,
        base_color=(1.0, 0.5, 1.0, 1.0),
    )
    image = of(part, square(-1.0)).draw(*front_camera(), SIZE, SIZE).image[0]
    np.testing.assert_allclose(image[:, 32, 32], np.array([0.5, 0.5, 0.25]) * 128 / 255, atol=1e-3)


def test_number_of_views_at_once_does_not_matter():
    sphere = trimesh.creation.icosphere(subdivisions=2)
    avatar = avatar_from_arrays(np.array(sphere.vertices), np.array(sphere.faces))
    eyes = np.array([[0, 0, 4], [4, 0, 0], [0, 1, 4], [3, 1, 3], [-4, 0, 1.0], [0, -1, -4]])
    world_to_camera = look_at(eyes, ORIGIN, UP)
    K = np.stack([intrinsics_from_fov(40.0, 48, 32)] * 6)
    together = avatar.draw(K, world_to_camera, 48, 32, shading="clay")
    for view in range(6):
        alone = avatar.draw(K[view, None], world_to_camera[view, None], 48, 32, shading="clay")
        for name in ("image", "alpha", "depth", "normal"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[view])


def test_lights_stand_still_in_the_head_frame():
    sphere = trimesh.creation.icosphere(subdivisions=4)
    avatar = avatar_from_arrays(np.array(sphere.vertices), np.array(sphere.faces))
    K = np.stack([intrinsics_from_fov(40.0, SIZE, SIZE)] * 2)
    world_to_camera = look_at(np.array([[0, 0, 4.0], [3.0, 0, 2.6]]), ORIGIN, UP)
    point = np.array([[0.5, 0.3, np.sqrt(1 - 0.34)]])

    def brightness(rotation, camera) -> float:
        image = avatar.draw(K, world_to_camera, SIZE, SIZE, "clay", light_rotation=rotation).image
        x, y, _ = project(point, K[0], world_to_camera[camera])[0]
        return float(image[camera, 0, int(y), int(x)])

    fixed = [brightness(np.eye(3), camera) for camera in (0, 1)]
    assert fixed[0] == pytest.approx(fixed[1], abs=0.01)
    moving = [brightness(None, camera) for camera in (0, 1)]
    assert abs(moving[0] - moving[1]) > 0.02
    upside_down = brightness(np.diag([1.0, -1.0, -1.0]), 0)
    assert upside_down < fixed[0] - 0.2


def test_hollows_are_darker():
    sphere = trimesh.creation.icosphere(subdivisions=4)
    vertices = np.array(sphere.vertices)
    pit = np.exp(-((vertices - [0, 0, 1]) ** 2).sum(axis=1) / 0.05)
    vertices = vertices * (1 - 0.4 * pit)[:, None]
    avatar = avatar_from_arrays(vertices, np.array(sphere.faces))
    occlusion = ambient_occlusion(avatar.scene)
    assert occlusion[np.argmax(pit)] < 0.7
    assert occlusion[pit < 1e-6].min() > 0.9
    flipped = avatar_from_arrays(vertices, np.array(sphere.faces)[:, ::-1].copy())
    np.testing.assert_allclose(ambient_occlusion(flipped.scene), occlusion, atol=1e-6)


def test_occlusion_does_not_change_when_the_avatar_is_turned_between_axes():
    rng = np.random.default_rng(1)
    sphere = trimesh.creation.icosphere(subdivisions=3)
    vertices = np.array(sphere.vertices) * (1 + 0.2 * np.sin(7 * np.array(sphere.vertices)[:, :1]))
    vertices = vertices + 0.01 * rng.normal(size=3)
    turn = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    one = ambient_occlusion(avatar_from_arrays(vertices, np.array(sphere.faces)).scene)
    two = ambient_occlusion(avatar_from_arrays(vertices @ turn.T, np.array(sphere.faces)).scene)
    assert np.abs(one - two).mean() < 0.01


def test_mips_of_odd_sizes_keep_constant_colours():
    texture = np.zeros((5, 3, 4), np.uint8)
    texture[...] = (10, 200, 30, 255)
    levels = mip_levels(texture, with_alpha=True)
    assert [level.shape[:2] for level in levels] == [(5, 3), (3, 2), (2, 1), (1, 1)]
    for level in levels:
        assert (level == (10, 200, 30, 255)).all()


def test_mips_of_opaque_pictures_are_those_of_pictures_whose_alpha_is_one():
    texture = np.random.default_rng(0).integers(0, 256, (64, 37, 4)).astype(np.uint8)
    solid = texture.copy()
    solid[..., 3] = 255
    for one, other in zip(mip_levels(texture, with_alpha=False), mip_levels(solid, with_alpha=True), strict=True):
        np.testing.assert_array_equal(one, other)


def test_uv_with_its_own_index():
    vertices, faces = QUAD.astype(np.float64), QUAD_FACES.astype(np.int64)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.1, 0.1], [0.2, 0.2]])
    uv_faces = np.array([[0, 1, 2], [4, 5, 3]])
    avatar = avatar_from_arrays(vertices, faces, uv, uv_faces, np.zeros((4, 4, 3), np.uint8))
    part = avatar.parts[0]
    np.testing.assert_allclose(part.vertices[part.faces], vertices[faces])
    np.testing.assert_allclose(part.uv[part.faces], uv[uv_faces])
    assert part.texture.shape == (4, 4, 4) and (part.texture[..., 3] == 255).all()


def test_unknown_shading():
    with pytest.raises(ValueError, match="shading"):
        of(square()).draw(*front_camera(), 8, 8, shading="neon")


def test_scan_covers_what_its_silhouette_should(test_data):
    avatar = load_avatar(test_data / "avatars/lps_head/lps_textured.glb")
    K, world_to_camera = front_camera(distance=25, fov=25, size=96)
    unlit = avatar.draw(K, world_to_camera, 96, 96)
    clay = avatar.draw(K, world_to_camera, 96, 96, shading="clay")
    inside = unlit.alpha[0] == 1
    assert 0.2 < inside.mean() < 0.6
    skin = unlit.image[0][:, inside].mean(axis=1)
    assert skin[0] > skin[1] > skin[2] > 0.2
    grey = clay.image[0][:, inside]
    np.testing.assert_array_equal(grey[0], grey[2])
    assert grey[0].std() > 0.08
    np.testing.assert_array_equal(unlit.depth, clay.depth)
