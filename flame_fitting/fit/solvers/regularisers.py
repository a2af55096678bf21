"""What holds a head that moves over time in the first-order stages: VHAP's regularisers, and changes over time."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from flame_fitting.fit.losses.offsets import OffsetRegulariser
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.geometry_weights import GeometryWeights
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix


def pose_loss(
    weights: GeometryWeights, now: FitParameters, moving: Collection[str], components: Mapping[str, int]
) -> Tensor:
    """VHAP's regularisers of the coefficients and joints that are `moving`; means over timesteps."""
    loss = now.expr.new_zeros(())
    for name in ("shape", "expr"):
        if getattr(weights, name) and name in moving:
            used = getattr(now, name)[..., : components.get(name)]
            loss = loss + getattr(weights, name) * used.square().mean()
    if weights.neck and "neck_pose" in moving:
        loss = loss + weights.neck * _turning(now.neck_pose)
    if weights.jaw and "jaw_pose" in moving:
        impossible = 10 * torch.relu(-now.jaw_pose[:, 0]).mean() + 3 * now.jaw_pose[:, 1:].square().mean()
        loss = loss + weights.jaw * (_turning(now.jaw_pose) + impossible)
    if weights.eyes and "eyes_pose" in moving:
        left, right = now.eyes_pose[:, :3], now.eyes_pose[:, 3:]
        # VHAP takes the difference once for each eye
        loss = loss + weights.eyes * (_turning(left) + _turning(right) + 2 * (left - right).square().mean())
    return loss


class OverTime:
    """Changes from a timestep to the next, and the regularisers of offsets, of the timesteps that are looked at."""

    def __init__(
        self,
        head: HeadModel,
        weights: GeometryWeights,
        moving: Collection[str],
        timesteps: int,
        before: FitParameters | None = None,
    ) -> None:
        """`moving` are names of parameters; `before` is the timestep before the first of these, float32."""
        self._weights, self._timesteps, self._earlier = weights, timesteps, before
        self._moving = set(moving)
        several = timesteps > 1 or before is not None
        self._smooth = [(name, weight) for name, weight in weights.smooth if weight and name in moving and several]
        offsets = {"static_offset", "dynamic_offset"} & self._moving
        self._regulariser = OffsetRegulariser(head, weights.offset) if offsets else None
        self._device = head.v_template.device
        self.turn_to(range(timesteps))

    def turn_to(self, rows: Sequence[int]) -> None:
        """Looks at some timesteps alone from here on."""
        self._count, self._has_first = len(rows), rows[0] == 0
        self._before = torch.tensor([max(row - 1, 0) for row in rows], device=self._device)
        """Row of the timestep before each; the first is its own."""
        pairs = sorted({row for at in rows for row in (at - 1, at) if 0 <= row < self._timesteps - 1})
        self._pairs = torch.tensor(pairs, dtype=torch.long, device=self._device)
        """First timesteps of the pairs of neighbours of which one is looked at."""

    def __call__(self, whole: FitParameters, now: FitParameters) -> Tensor:
        """Everything, of the parameters of all timesteps and of those that are looked at."""
        loss = whole.expr.new_zeros(())
        for name, weight in self._smooth:
            previous = getattr(whole, name).detach().index_select(0, self._before)
            if self._earlier is not None and self._has_first:
                previous = torch.cat([getattr(self._earlier, name), previous[1:]])
            loss = loss + weight * (getattr(now, name) - previous).square().mean()
        if self._regulariser is None:
            return loss
        if "dynamic_offset" not in self._moving:
            return loss + self._regulariser(now.static_offset[0])
        moved = now.dynamic_offset
        loss = loss + self._regulariser(now.offset.transpose(0, 1).flatten(1))
        loss = loss + self._weights.offset.l1 * moved.abs().mean()
        return loss + self._weights.offset_change * self._offset_change(whole, now)

    def _offset_change(self, whole: FitParameters, now: FitParameters) -> Tensor:
        """Mean squared change of the dynamic offsets. Both ends of a pair count, so that a timestep follows both of its
        neighbours: what a step does not look at stands still."""
        first, last = (whole.dynamic_offset.index_select(0, self._pairs + shift) for shift in (0, 1))
        total = (last - first).square().sum()
        if self._earlier is not None and self._has_first and self._earlier.moves_vertices:
            total = total + (now.dynamic_offset[:1] - self._earlier.dynamic_offset).square().sum()
        return total / (self._count * now.static_offset.numel())


def _turning(rotations: Tensor) -> Tensor:
    """Mean squared difference between rotation matrices (T, 3, 3) of axis-angles and the identity."""
    identity = torch.eye(3, device=rotations.device)
    return (rotation_matrix(rotations) - identity).square().mean()
