"""Symmetric block-arrow systems: frames in a chain, and one block that all of them share.

    [ D_1  B_1'           A_1 ]
    [ B_1  D_2  B_2'      A_2 ]      D_t diagonal[t], B_t below[t], A_t arrow[t], C corner
    [      B_2  D_3  ...  ... ]
    [ A_1' A_2' ...       C   ]

Frames are eliminated one after the other by block Cholesky, which leaves the Schur complement of the shared block; the
blocks of the inverse come from the same factors (Takahashi, Fagan and Chen 1973; Erisman and Tinney 1975). Time and
memory are linear in the number of frames: no matrix of all frames is ever built.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_BLOCK = 192
"""Columns of a product of which only the lower triangle is wanted."""


class BlockVector(NamedTuple):
    """A vector of the shared unknowns and those of every frame."""

    shared: Float[Tensor, " S"]
    frames: Float[Tensor, "T F"]

    def dot(self, other: "BlockVector") -> float:
        """Inner product."""
        return float(self.shared @ other.shared + (self.frames * other.frames).sum())


@dataclass(frozen=True, eq=False)
class BlockArrow:
    """The matrix; S, F or T - 1 may be 0."""

    corner: Float[Tensor, "S S"]
    arrow: Float[Tensor, "T F S"]
    diagonal: Float[Tensor, "T F F"]
    below: Float[Tensor, "T_1 F F"]
    """Row t + 1, column t."""

    def times(self, x: BlockVector) -> BlockVector:
        """Product with a vector."""
        shared = self.corner @ x.shared + self.arrow.flatten(0, 1).mT @ x.frames.flatten()
        frames = torch.einsum("tfg,tg->tf", self.diagonal, x.frames) + self.arrow @ x.shared
        frames[1:] += torch.einsum("tfg,tg->tf", self.below, x.frames[:-1])
        frames[:-1] += torch.einsum("tgf,tg->tf", self.below, x.frames[1:])
        return BlockVector(shared, frames)

    def damped(self, damping: float) -> "BlockArrow":
        """With Marquardt's damping: the diagonal times 1 + `damping`; what is not determined at all gets a little."""
        corner, diagonal = self.corner.clone(), self.diagonal.clone()
        for matrix in (corner, diagonal):
            entries = matrix.diagonal(dim1=-2, dim2=-1)
            entries += damping * entries.clamp_min(1e-9) + 1e-12
        return replace(self, corner=corner, diagonal=diagonal)

    def holding(self, held: Bool[Tensor, "T F"]) -> "BlockArrow":
        """With unknowns of frames cut off from all others: their part of a solution is their part of the right side."""
        if not held.any():
            return self
        free = (~held).to(self.diagonal)
        diagonal = self.diagonal * free[:, :, None] * free[:, None] + torch.diag_embed(held.to(self.diagonal))
        below = self.below * free[1:, :, None] * free[:-1, None]
        return replace(self, arrow=self.arrow * free[..., None], diagonal=diagonal, below=below)

    def frames_alone(self) -> "BlockArrow":
        """Of the frames, the shared unknowns held."""
        return replace(self, corner=self.corner[:0, :0], arrow=self.arrow[..., :0])

    def factorised(self) -> "Factors":
        """Cholesky factors. Raises torch.linalg.LinAlgError where the matrix is not positive definite."""
        count, size = self.diagonal.shape[:2]
        lower, arrow = torch.empty_like(self.diagonal), torch.empty_like(self.arrow)
        below = torch.empty_like(self.below, memory_format=torch.contiguous_format)
        for t in range(count):
            block, side = self.diagonal[t], self.arrow[t]
            if t > 0:
                below[t - 1] = _solve_lower(lower[t - 1], self.below[t - 1].mT).mT
                block = block - below[t - 1] @ below[t - 1].mT
                side = side - below[t - 1] @ arrow[t - 1]
            lower[t] = torch.linalg.cholesky(block) if size else block
            arrow[t] = _solve_lower(lower[t], side)
        corner = self.corner - _lower_gram(arrow.flatten(0, 1))
        return Factors(torch.linalg.cholesky(corner) if len(corner) else corner, arrow, lower, below)


@dataclass(frozen=True, eq=False)
class Factors:
    """Blocks of the lower triangular factor, frames first; `arrow` holds those of the last row transposed."""

    corner: Float[Tensor, "S S"]
    arrow: Float[Tensor, "T F S"]
    lower: Float[Tensor, "T F F"]
    below: Float[Tensor, "T_1 F F"]

    def solve(self, right: BlockVector) -> BlockVector:
        """The solution for a right-hand side."""
        count = len(self.lower)
        y, shared = torch.empty_like(right.frames), right.shared.clone()
        for t in range(count):
            row = right.frames[t] if t == 0 else right.frames[t] - self.below[t - 1] @ y[t - 1]
            y[t] = _solve_lower(self.lower[t], row[:, None])[:, 0]
            shared -= self.arrow[t].mT @ y[t]
        shared = torch.cholesky_solve(shared[:, None], self.corner)[:, 0] if len(shared) else shared
        x = torch.empty_like(y)
        for t in reversed(range(count)):
            row = y[t] - self.arrow[t] @ shared
            if t + 1 < count:
                row = row - self.below[t].mT @ x[t + 1]
            x[t] = torch.linalg.solve_triangular(self.lower[t].mT, row[:, None], upper=True)[:, 0]
        return BlockVector(shared, x)

    def inverse_blocks(self) -> tuple[Float[Tensor, "S S"], Float[Tensor, "T F F"]]:
        """The shared block of the inverse, and the diagonal block of every frame."""
        shared = torch.cholesky_inverse(self.corner) if len(self.corner) else self.corner
        frames, size = torch.empty_like(self.lower), self.lower.shape[1]
        eye = torch.eye(size).to(self.lower)
        later, later_shared = (
            eye[:0],
            shared[:0],
        )  # of the frame after: its block of the inverse, and that with the shared
        for t in reversed(range(len(frames))):
            inverse = _solve_lower(self.lower[t], eye)
            to_shared = self.arrow[t].mT @ inverse
            with_shared = -to_shared.mT @ shared
            block = inverse.mT @ inverse
            if t + 1 < len(frames):
                to_later = self.below[t] @ inverse
                with_shared = with_shared - to_later.mT @ later_shared
                block = block + (to_later.mT @ later + to_shared.mT @ later_shared.mT) @ to_later
            block = block - with_shared @ to_shared
            frames[t] = later = 0.5 * (block + block.mT)
            later_shared = with_shared
        return shared, frames

    def change_covariances(self) -> Float[Tensor, "T_1 F F"]:
        """Covariances of the changes from each frame to the next by the inverse, where nothing is shared."""
        assert not len(self.corner)
        out, eye = torch.empty_like(self.lower[1:]), torch.eye(self.lower.shape[1]).to(self.lower)
        later = eye[:0]
        for t in reversed(range(len(self.lower))):
            inverse = _solve_lower(self.lower[t], eye)
            block = inverse.mT @ inverse
            if t + 1 < len(self.lower):
                to_later = self.below[t] @ inverse
                cross = later @ to_later  # minus the block of both
                block = block + to_later.mT @ cross
                out[t] = block + later + cross + cross.mT
            later = 0.5 * (block + block.mT)
        return out


def _lower_gram(rows: Float[Tensor, "n S"]) -> Float[Tensor, "S S"]:
    """rows' rows, block by block: what lies above the blocks of the diagonal is left 0."""
    out = rows.new_zeros(rows.shape[1], rows.shape[1])
    for start in range(0, rows.shape[1], _BLOCK):
        out[start:, start : start + _BLOCK] = rows[:, start:].mT @ rows[:, start : start + _BLOCK]
    return out


def _solve_lower(lower: Float[Tensor, "F F"], right: Float[Tensor, "F K"]) -> Float[Tensor, "F K"]:
    return torch.linalg.solve_triangular(lower, right, upper=False)
