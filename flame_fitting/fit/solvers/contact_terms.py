"""What keeps lips and lids of offsets apart, and lids that are shut together."""

from dataclasses import replace

import torch

from flame_fitting.fit.contact import Meeting, touching
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.biases import turn_of
from flame_fitting.fit.solvers.evidence_terms import LIDS, evidence_of, shut_eyes
from flame_fitting.fit.solvers.jacobians import skinning_rotations
from flame_fitting.fit.solvers.offset_system import OffsetSystem
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.head.apertures import apertures_of
from flame_fitting.head.model import HeadModel


def add_contact(
    system: OffsetSystem,
    head: HeadModel,
    parameters: FitParameters,
    parts: list[Meeting],
    weight: float,
    clearance: float,
) -> None:
    """Adds that parts do not pass through each other: those vertices that are about to keep the least distance along
    the other part's normal, in the fit and in its neutral head (an active set, found anew each time). `clearance` is in
    metres."""
    neutral = FitParameters.neutral(head, 1, parameters.shape.dtype)
    neutral = replace(neutral, shape=parameters.shape, static_offset=parameters.static_offset)
    poses = [(parameters, timestep) for timestep in range(parameters.timesteps)] + [(neutral, 0)]
    for pose, timestep in poses:
        carry = skinning_rotations(head, pose, timestep)
        vertices = pose.vertices(head)[timestep].detach()
        found = touching(vertices.cpu().numpy(), parts, clearance)
        own, other = (torch.as_tensor(ids, device=vertices.device) for ids in (found.own, found.other))
        normal, shares, gap = (torch.as_tensor(v).to(vertices) for v in (found.normal, found.shares, found.gap))
        matrices = torch.cat([carry[own][:, None], -carry[other] * shares[:, :, None, None]], dim=1)
        along = torch.zeros_like(matrices)
        along[:, :, 0] = torch.einsum("nc,nkcd->nkd", normal, matrices)
        corners = torch.cat([own[:, None], other], dim=1)
        now = torch.einsum("nkd,nkd->n", along[:, :, 0], pose.static_offset[0][corners])
        wanted = torch.zeros_like(normal)
        wanted[:, 0] = now + clearance - gap
        system.add_points(corners, along, wanted, torch.full_like(gap, weight))


def add_shut_lids(
    system: OffsetSystem, head: HeadModel, parameters: FitParameters, targets: list[FrameTarget], weight: float
) -> None:
    """Adds that the rims of lids meet where evidence says that they are shut, along the head's own axis."""
    apertures = apertures_of(head)
    for timestep, evidence in evidence_of(targets).items():
        rows = [row for eye in shut_eyes(evidence) for row in range(LIDS[eye].start, LIDS[eye].stop)]
        if apertures is None or not rows:
            continue
        carry = skinning_rotations(head, parameters, timestep)
        vertices = parameters.vertices(head)[timestep].detach()
        up = turn_of(parameters, timestep, head.parents)[:, 1].to(vertices)
        corners = head.faces[torch.as_tensor(apertures.face_index[:, rows], device=vertices.device)]
        shares = (
            torch.as_tensor(apertures.barycentric[:, rows]).to(vertices)
            * vertices.new_tensor([1.0, -1.0])[:, None, None]
        )
        corners, shares = corners.transpose(0, 1).flatten(1), shares.transpose(0, 1).flatten(1)
        along = vertices.new_zeros(len(rows), 6, 3, 3)
        along[:, :, 0] = torch.einsum("c,nkcd->nkd", up, carry[corners]) * shares[..., None]
        wanted = vertices.new_zeros(len(rows), 3)
        now = torch.einsum("nkd,nkd->n", along[:, :, 0], parameters.static_offset[0][corners])
        wanted[:, 0] = now - torch.einsum("c,nkc,nk->n", up, vertices[corners], shares)
        system.add_points(corners, along, wanted, vertices.new_full((len(rows),), weight))
