"""STAR's landmark network: four stacked hourglasses with edge and point attention, decoded by a centre of mass.

Zhou et al., "STAR Loss: Reducing Semantic Ambiguity in Facial Landmark Detection", CVPR 2023; the hourglass is Newell's
("Stacked Hourglass Networks", ECCV 2016), the attention that of Huang et al., "ADNet", ICCV 2021, the coordinate
channels Liu et al.'s ("CoordConv", NeurIPS 2018). Modules are named as in the state dict that the authors publish.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, instance_norm, interpolate, max_pool2d

INPUT = 256
"""Side of the square picture that the network takes, px."""
MAP = 64
"""Side of its maps."""
_STACKS, _DEPTH, _WIDTH = 4, 4, 256
_GATE = 0.05
"""Heat above which coordinates are shown to the next stack."""

# Points of each edge: face contour, brows, ridge and base of the nose, eyes, outer and inner lip; the subject's right
# before the left.
_EDGES: dict[int, tuple[range, ...]] = {
    68: (
        *(range(0, 17), range(17, 22), range(22, 27), range(27, 31), range(31, 36)),
        *(range(36, 42), range(42, 48), range(48, 60), range(60, 68)),
    ),
    98: (
        *(range(0, 33), range(33, 42), range(42, 51), range(51, 55), range(55, 60)),
        *(range(60, 68), range(68, 76), range(76, 88), range(88, 96)),
    ),
}
POINTS = tuple(_EDGES)
"""Numbers of points that there are networks of: 300W's (iBUG-68) and WFLW's."""


class StarNetwork(nn.Module):
    """Pictures in, landmarks out. Use it in eval mode.

    Args:
        n_points: 68 or 98, one of `POINTS`.
    """

    def __init__(self, n_points: int) -> None:
        super().__init__()
        edges = _EDGES[n_points]
        self.n_points = n_points
        self.pre = nn.Sequential(
            _CoordConv(3, 64, INPUT, 3, kernel=7, stride=2, normed=True),
            _Residual(64, 128),
            nn.MaxPool2d(2),
            _Residual(128, 128),
            _Residual(128, _WIDTH),
        )
        self.hgs = nn.ModuleList(_Hourglass(gated=stack > 0) for stack in range(_STACKS))
        self.features = nn.ModuleList(
            nn.Sequential(_Residual(_WIDTH, _WIDTH), _Conv(_WIDTH, _WIDTH, normed=True)) for _ in range(_STACKS)
        )
        self.out_heatmaps = _heads(_STACKS, _WIDTH, n_points)
        self.e2h_transform = _EdgeToPoints(n_points, edges)
        self.out_edgemaps = _heads(_STACKS, _WIDTH, len(edges))
        self.out_pointmaps = _heads(_STACKS, _WIDTH, n_points)
        self.merge_edgemaps = _heads(_STACKS - 1, len(edges), _WIDTH)
        self.merge_pointmaps = _heads(_STACKS - 1, n_points, _WIDTH)
        self.merge_features = _heads(_STACKS - 1, _WIDTH, _WIDTH)
        self.merge_heatmaps = _heads(_STACKS - 1, n_points, _WIDTH)

    def forward(self, images: Float[Tensor, "B 3 256 256"]) -> Float[Tensor, "B N 2"]:
        """Landmarks x, y of pictures in -1..1 with the channels blue, green, red; -1 and 1 are the picture's rims."""
        return decode(self.maps(images)[-1])

    def maps(self, images: Float[Tensor, "B 3 256 256"]) -> list[Float[Tensor, "B N 64 64"]]:
        """The attended heat maps, 0 or more, of all stacks; the last one's are the answer."""
        x, heat, out = self.pre(images), None, []
        for stack in range(_STACKS):
            feature = self.features[stack](self.hgs[stack](x, heat))
            heat = torch.relu(instance_norm(self.out_heatmaps[stack](feature)))
            points = torch.sigmoid(self.out_pointmaps[stack](feature))
            edges = torch.sigmoid(self.out_edgemaps[stack](feature))
            out.append(self.e2h_transform(edges) * points * heat)
            if stack < _STACKS - 1:
                x = (
                    x
                    + self.merge_features[stack](feature)
                    + self.merge_heatmaps[stack](heat)
                    + self.merge_pointmaps[stack](points)
                    + self.merge_edgemaps[stack](edges)
                )
        return out


def decode(maps: Float[Tensor, "B N H W"]) -> Float[Tensor, "B N 2"]:
    """Centre of mass x, y of maps that are nowhere negative; -1 and 1 are the centres of the outermost cells."""
    height, width = maps.shape[-2:]
    mass = maps.sum((-2, -1)).clamp_min(1e-6)
    x = (maps.sum(-2) * _grid(width, maps)).sum(-1) / mass
    y = (maps.sum(-1) * _grid(height, maps)).sum(-1) / mass
    return torch.stack([x, y], dim=-1)


def points_of_state_dict(state: Mapping[str, Tensor]) -> int:
    """How many points a state dict is for, whatever its file is called; ValueError where it is not of this network."""
    weight = state.get("out_heatmaps.0.conv.weight")
    if not isinstance(weight, Tensor) or weight.ndim != 4 or len(weight) not in _EDGES:
        found = "has no heat maps" if not isinstance(weight, Tensor) else f"is for {len(weight)} points"
        raise ValueError(f"{found}; {' or '.join(str(n) for n in POINTS)} are known")
    return len(weight)


class _Conv(nn.Module):
    """Convolution; where asked, normalised and rectified."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1, normed: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, padding=(kernel - 1) // 2)
        self.bn = nn.BatchNorm2d(outside) if normed else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else torch.relu(self.bn(x))


class _Residual(nn.Module):
    """Bottleneck that normalises first (He et al., "Identity Mappings in Deep Residual Networks", 2016)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        middle = outside // 2
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = _Conv(inside, middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv2 = _Conv(middle, middle, 3)
        self.bn3 = nn.BatchNorm2d(middle)
        self.conv3 = _Conv(middle, outside)
        # In the published state dicts also where nothing needs it.
        self.skip_layer = _Conv(inside, outside)
        self.needs_skip = inside != outside

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(torch.relu(self.bn1(x)))
        out = self.conv2(torch.relu(self.bn2(out)))
        out = self.conv3(torch.relu(self.bn3(out)))
        return out + (self.skip_layer(x) if self.needs_skip else x)


class _CoordConv(nn.Module):
    """Convolution that also sees where it is: down, across and distance from the middle; `more` gated ones behind."""

    coordinates: Tensor

    def __init__(
        self, inside: int, outside: int, side: int, more: int, kernel: int = 1, stride: int = 1, normed: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside + more, outside, kernel, stride, padding=(kernel - 1) // 2)
        self.bn = nn.BatchNorm2d(outside) if normed else None
        # Whole numbers first, as in the reference: the order of rounding is part of the result.
        steps = 2 * (torch.arange(side, dtype=torch.float32) / (side - 1)) - 1
        down, across = steps[:, None].expand(side, side), steps.expand(side, side)
        radius = (down**2 + across**2).sqrt()
        self.register_buffer("coordinates", torch.stack([down, across, radius / radius.max()]), persistent=False)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        places = self.coordinates.to(x.dtype).expand(len(x), -1, -1, -1)
        parts = [x, places]
        if gate is not None:
            parts.append(torch.where(gate, places[:, :2], torch.zeros_like(places[:, :2])))
        x = self.conv(torch.cat(parts, dim=1))
        return x if self.bn is None else torch.relu(self.bn(x))


class _Level(nn.Module):
    """One level of an hourglass, with the smaller ones in `low2`."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.up1, self.low1 = _Residual(_WIDTH, _WIDTH), _Residual(_WIDTH, _WIDTH)
        self.low2: nn.Module = _Level(depth - 1) if depth > 1 else _Residual(_WIDTH, _WIDTH)
        self.low3 = _Residual(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low3(self.low2(self.low1(max_pool2d(x, 2))))
        return self.up1(x) + interpolate(low, scale_factor=2.0, mode="nearest")


class _Hourglass(_Level):
    """The outermost level, which is told where it is and, but for the first, where the last point was hot."""

    def __init__(self, gated: bool) -> None:
        nn.Module.__init__(self)
        self.coordconv = _CoordConv(_WIDTH, _WIDTH, MAP, 5 if gated else 3)
        level = _Level(_DEPTH)
        self.up1, self.low1, self.low2, self.low3 = level.up1, level.low1, level.low2, level.low3

    def forward(self, x: Tensor, heat: Tensor | None = None) -> Tensor:
        gate = None if heat is None else heat[:, -1:].clamp(0, 1) > _GATE
        return super().forward(self.coordconv(x, gate))


class _EdgeToPoints(nn.Module):
    """The map of each point's edge; 1 for points on none. Buffers, which the state dict has."""

    weight: Tensor
    bias: Tensor

    def __init__(self, n_points: int, edges: tuple[range, ...]) -> None:
        super().__init__()
        weight = torch.zeros(n_points, len(edges), 1, 1)
        for number, edge in enumerate(edges):
            weight[list(edge), number] = 1.0
        self.register_buffer("weight", weight)
        self.register_buffer("bias", (weight.sum((1, 2, 3)) == 0).float())

    def forward(self, edges: Tensor) -> Tensor:
        return conv2d(edges, self.weight, self.bias)


def _heads(count: int, inside: int, outside: int) -> nn.ModuleList:
    return nn.ModuleList(_Conv(inside, outside) for _ in range(count))


def _grid(count: int, like: Tensor) -> Tensor:
    return (2 * torch.arange(count, dtype=torch.float32, device=like.device) / (count - 1) - 1).to(like.dtype)
