"""What culling must keep, for any rasterizer: the head's open parts, with culled faces in the mesh and without."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from flame_fitting.capture.camera import clip_from_world, intrinsics_from_fov, look_at
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.winding import front_faces

SIZE = 256
OPEN_PARTS = {"mouth interior": "lip_inside", "eye sockets": "eye_region", "neck rim": "boundary"}
"""Part and the head's region that holds it."""


@lru_cache(maxsize=1)
def head() -> HeadModel:
    return load_head("open")


def open_mouth_views(n_views: int = 3) -> tuple[Tensor, Tensor]:
    """Clip positions (3, V, 4) of the open head with its mouth open, from the front, the side and below; faces."""
    with torch.no_grad():
        vertices = head()(jaw_pose=torch.tensor([[0.35, 0.0, 0.0]])).vertices[0].double()
    target = vertices[head().regions["lips"]].mean(0).numpy() + np.array([0.0, 0.02, 0.0])
    eye = target + np.array([[0.05, 0.02, 0.4], [0.32, 0.05, 0.25], [0.1, -0.45, 0.3]])
    clip = clip_from_world(
        intrinsics_from_fov(35.0, SIZE, SIZE), look_at(eye, target, [0.0, 1.0, 0.0]), SIZE, SIZE, 0.05, 5.0
    )
    pos = torch.cat([vertices, torch.ones(len(vertices), 1)], dim=1) @ torch.tensor(clip).transpose(1, 2)
    return pos[:n_views].float(), head().faces.int()


def only_front_faces_are_drawn(rasterizer: Rasterizer) -> None:
    """Of the culled faces none is drawn, and pixels that showed a front face without culling keep it."""
    pos, tri = (tensor.to(rasterizer.device) for tensor in open_mouth_views())
    mask = front_faces(pos, tri)
    everything, everything_db = rasterizer.rasterize(pos, tri, (SIZE, SIZE))
    culled, culled_db = rasterizer.rasterize(pos, tri, (SIZE, SIZE), mask)
    front_before, front_after = _is_front(everything, mask), _is_front(culled, mask)
    drawn = culled[..., 3] > 0
    assert drawn.flatten(1).any(1).all()
    assert torch.equal(front_after, drawn)
    assert (everything[2, ..., 3] > 0).sum() > drawn[2].sum() + 800  # the inside of the neck, seen from below
    assert torch.equal(everything[front_before], culled[front_before])
    assert torch.equal(everything_db[front_before], culled_db[front_before])


def gradients_equal_those_of_a_mesh_without_the_culled_faces(rasterizer: Rasterizer) -> None:
    pos, tri = (tensor.to(rasterizer.device) for tensor in open_mouth_views())
    mask = front_faces(pos, tri)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(len(pos), SIZE, SIZE, 2, generator=generator).to(rasterizer.device)
    weight_db = torch.randn(len(pos), SIZE, SIZE, 4, generator=generator).to(rasterizer.device)

    def gradient(p: Tensor, faces: Tensor, face_mask: Tensor | None, view: slice) -> tuple[Tensor, Tensor, Tensor]:
        p = p.clone().requires_grad_()
        rast, rast_db = rasterizer.rasterize(p, faces, (SIZE, SIZE), face_mask)
        loss = (rast[..., :2] * weight[view]).sum() + (rast_db.clamp(-2, 2) * weight_db[view]).sum()
        return rast.detach(), rast_db.detach(), torch.autograd.grad(loss, p)[0]

    together, together_db, got = gradient(pos, tri, mask, slice(None))
    for b in range(len(pos)):
        numbers = torch.cat([torch.zeros(1, device=tri.device), torch.nonzero(mask[b])[:, 0] + 1])
        rast, rast_db, expected = gradient(pos[b : b + 1], tri[mask[b]].contiguous(), None, slice(b, b + 1))
        assert torch.equal(together[b, ..., 3], numbers[rast[0, ..., 3].long()])
        assert torch.equal(together[b, ..., :3], rast[0, ..., :3])
        assert torch.equal(together_db[b], rast_db[0])
        # The order of sums on a GPU is not fixed.
        assert (got[b] - expected[0]).norm() <= 1e-5 * expected.norm()


def a_batchs_gradients_are_those_of_its_views(rasterizer: Rasterizer) -> None:
    """Many small views of the same two faces: a warp works on edges of several views."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[-0.7, -0.6], [0.6, -0.7], [0.7, 0.6], [-0.6, 0.7]])
    flat = corners + 0.1 * torch.randn(48, 4, 2, generator=generator)
    pos = torch.cat([flat, torch.zeros(48, 4, 1), torch.ones(48, 4, 1)], dim=-1).to(rasterizer.device)
    tri = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32, device=rasterizer.device)
    topology = rasterizer.topology(tri)

    def gradient(p: Tensor) -> Tensor:
        p = p.clone().requires_grad_()
        rast, _ = rasterizer.rasterize(p, tri, (16, 16))
        out = rasterizer.antialias((rast[..., 3:] > 0).float(), rast.detach(), p, tri, topology)
        return torch.autograd.grad((out * out).sum(), p)[0]

    together = gradient(pos)
    expected = torch.cat([gradient(pos[b : b + 1]) for b in range(len(pos))])
    assert (expected.flatten(1).norm(dim=1) > 0).all()
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-4)


def culled_silhouettes_are_antialiased(rasterizer: Rasterizer) -> None:
    """Edges between drawn and culled faces blend as open edges of a mesh without the culled faces do."""
    pos, tri = (tensor.to(rasterizer.device) for tensor in open_mouth_views())
    mask = front_faces(pos, tri)
    rast, _ = rasterizer.rasterize(pos, tri, (SIZE, SIZE), mask)
    # A colour for each face, so that inner silhouettes show too.
    shade = torch.rand(len(tri) + 1, 3, generator=torch.Generator().manual_seed(1)).to(rasterizer.device)
    shade[0] = 0.0
    color = shade[rast[..., 3].long()]
    changed = dict.fromkeys(OPEN_PARTS, 0)
    all_p = pos.clone().requires_grad_()
    out = rasterizer.antialias(color, rast, all_p, tri, rasterizer.topology(tri))
    (grad,) = torch.autograd.grad((out * out).sum(), all_p)
    for b in range(len(pos)):
        faces = tri[mask[b]].contiguous()
        number = torch.zeros(len(tri) + 1, device=tri.device)
        number[1:][mask[b]] = torch.arange(1, len(faces) + 1, device=tri.device, dtype=number.dtype)
        own = rast[b : b + 1].clone()
        own[..., 3] = number[own[..., 3].long()]
        one_p = pos[b : b + 1].clone().requires_grad_()
        expected = rasterizer.antialias(color[b : b + 1], own, one_p, faces, rasterizer.topology(faces))
        torch.testing.assert_close(out[b], expected[0].detach(), atol=1e-6, rtol=0)
        (expected_grad,) = torch.autograd.grad((expected * expected).sum(), one_p)
        assert expected_grad.norm() > 0
        assert (grad[b] - expected_grad[0]).norm() <= 1e-5 * expected_grad.norm()

        rims = _faces_at_the_edge_of_what_is_drawn(tri, mask[b])
        blended = (out[b].detach() != color[b]).any(-1)
        for part, region in OPEN_PARTS.items():
            inside = torch.zeros(pos.shape[1], dtype=torch.bool, device=tri.device)
            inside[head().regions[region].to(tri.device)] = True
            of_part = torch.cat([torch.zeros(1, dtype=torch.bool, device=tri.device), rims & inside[tri.long()].any(1)])
            changed[part] += int((blended & of_part[rast[b, ..., 3].long()]).sum())
    assert all(count >= 20 for count in changed.values()), changed


def _is_front(rast: Tensor, mask: Tensor) -> Tensor:
    face = rast[..., 3].long()
    of_view = torch.arange(len(rast), device=rast.device)[:, None, None].expand_as(face)
    return (face > 0) & mask[of_view, (face - 1).clamp_min(0)]


def _faces_at_the_edge_of_what_is_drawn(tri: Tensor, mask: Tensor) -> Tensor:
    """(F,) drawn faces with an edge beyond which the face is culled, or there is none."""
    faces, drawn = tri.cpu().numpy().astype(np.int64), mask.cpu().numpy()
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]], axis=-1).reshape(-1, 2)
    owner_drawn = np.repeat(drawn, 3)
    _, edge = np.unique(edges, axis=0, return_inverse=True)
    alone = np.bincount(edge.ravel(), weights=owner_drawn)[edge.ravel()] == 1
    return torch.from_numpy((alone & owner_drawn).reshape(-1, 3).any(axis=1)).to(tri.device)
