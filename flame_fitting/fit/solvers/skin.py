"""What a second-order solver poses of a head: vertices, or points that are means of vertices.

Linear blend skinning is linear in vertices: a point p = sum_k s_k v_k of them is, with W_j = sum_k s_k w_kj,
    p = sum_j R_j x_j + W_j shift_j,    x_j = sum_k s_k w_kj rest_k,
so that a point that few joints carry needs the sums x_j alone, and not its vertices one by one.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_fitting.head.model import HeadModel


class Vertices:
    """Vertices as they are at rest (C = 3), each turned by all that carries it."""

    def __init__(self, head: HeadModel, chosen: Int[Tensor, " n"] | None = None) -> None:
        """`chosen` names them, in that order; None takes all."""
        self._rows: Tensor | slice = slice(None) if chosen is None else chosen
        self.joints = list(range(len(head.parents)))
        """A joints that carry any of them."""
        self.weights: Float[Tensor, "N A"] = head.weights[self._rows]
        self.total: Float[Tensor, " N"] = torch.ones_like(self.weights[:, 0])
        """By how much each follows a translation of the head."""

    def of(self, field: Float[Tensor, "V 3 *rest"]) -> Float[Tensor, "N C *rest"]:
        """What they have of a field on the head at rest."""
        return field[self._rows]

    def turning(self, world: Float[Tensor, "T J 3 3"]) -> Float[Tensor, "T N 3 C"]:
        """How displacements at rest move them when joints are turned by `world`; dimension N may be 1."""
        return torch.einsum("nj,tjab->tnab", self.weights, world)

    def moved(
        self,
        turning: Float[Tensor, "T N 3 C"],
        basis: Float[Tensor, "N C K"],
        shift: Float[Tensor, "T A 3 K"],
    ) -> Float[Tensor, "T N 3 K"]:
        """By displacements at rest, and by shifts of the joints."""
        return (turning @ basis).add_((self.weights @ shift.flatten(2)).unflatten(-1, (3, -1)))

    def carried(
        self, rest: Float[Tensor, "T N C"], world: Float[Tensor, "T J 3 3"], shift: Float[Tensor, "T A 3"]
    ) -> Float[Tensor, "T A N 3"]:
        """As each joint alone turns and then shifts them, times its weight."""
        return self.weights.T[..., None] * (rest[:, None] @ world.mT + shift[:, :, None])


class Points:
    """Sums of vertices; each has at rest (C = 3 A) what each of the joints carries of it."""

    def __init__(self, head: HeadModel, groups: Sequence[tuple[Int[Tensor, "_ _"], Float[Tensor, "_ _"]]]) -> None:
        """`groups` has vertices and their shares, of some points after others."""
        weights = torch.cat([torch.einsum("nm,nmj->nj", shares, head.weights[corners]) for corners, shares in groups])
        used = [head.weights[corners].any(0).any(0) for corners, _ in groups]
        self.joints = torch.nonzero(torch.stack(used).any(0))[:, 0].tolist()
        self.weights = weights[:, self.joints]
        self.total = torch.cat([shares.sum(1) for _, shares in groups])
        self._groups = [
            (corners, shares[..., None] * head.weights[corners][..., self.joints]) for corners, shares in groups
        ]

    def of(self, field: Float[Tensor, "V 3 *rest"]) -> Float[Tensor, "N C *rest"]:
        """What they have of a field on the head at rest."""
        sums = [torch.einsum("nma,nmf->naf", shares, field[corners].flatten(2)) for corners, shares in self._groups]
        return torch.cat(sums).reshape(len(self.total), 3 * len(self.joints), *field.shape[2:])

    def turning(self, world: Float[Tensor, "T J 3 3"]) -> Float[Tensor, "T 1 3 C"]:
        """How displacements at rest move them when joints are turned by `world`, which is the same for all."""
        return world[:, self.joints].transpose(1, 2).flatten(2)[:, None]

    def moved(
        self,
        turning: Float[Tensor, "T 1 3 C"],
        basis: Float[Tensor, "N C K"],
        shift: Float[Tensor, "T A 3 K"],
    ) -> Float[Tensor, "T N 3 K"]:
        """By displacements at rest, and by shifts of the joints."""
        steps, count = len(turning), len(basis)
        out = (self.weights @ shift.transpose(0, 1).flatten(1)).view(count, 3 * steps, basis.shape[2])
        # in place: each is as large as the whole Jacobian
        out.baddbmm_(turning.flatten(0, 2).expand(count, -1, -1), basis)
        return out.unflatten(1, (steps, 3)).transpose(0, 1)

    def carried(
        self, rest: Float[Tensor, "T N C"], world: Float[Tensor, "T J 3 3"], shift: Float[Tensor, "T A 3"]
    ) -> Float[Tensor, "T A N 3"]:
        """As each joint alone turns and then shifts them, times its weight."""
        turned = rest.unflatten(2, (-1, 3)).transpose(1, 2) @ world[:, self.joints].mT
        return turned + self.weights.T[..., None] * shift[:, :, None]


def different(
    groups: Sequence[tuple[Int[Tensor, "_ _"], Float[Tensor, "_ _"]]],
) -> tuple[list[tuple[Tensor, Tensor]], list[Int[Tensor, " _"]]]:
    """Different points of some groups, as `Points` takes them, and which of them each point of each group is."""
    out: list[tuple[Tensor, Tensor]] = []
    number: dict[int, Tensor] = {}
    start = 0
    for width in sorted({corners.shape[1] for corners, _ in groups}):
        same = [n for n, (corners, _) in enumerate(groups) if corners.shape[1] == width]
        corners, shares = (torch.cat(parts) for parts in zip(*(groups[n] for n in same), strict=True))
        rows, found = torch.unique(torch.cat([corners.to(shares), shares], dim=1), dim=0, return_inverse=True)
        out.append((rows[:, :width].to(corners), rows[:, width:]))
        number |= zip(same, (start + found).split([len(groups[n][0]) for n in same]), strict=True)
        start += len(rows)
    return out, [number[n] for n in range(len(groups))]
