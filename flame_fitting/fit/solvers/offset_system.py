"""The linear system of one step of the static offsets, and its two solvers: sparse factors on a CPU, PCG on a GPU."""

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from jaxtyping import Float, Int
from scipy.sparse.linalg import splu
from torch import Tensor

_CORNERS = 6
"""Vertices that a row of points ties, at most: those of two triangles."""


@dataclass(eq=False)
class OffsetSystem:
    """Normal equations for offsets d (V, 3): blocks of vertices, rows of few vertices (landmarks,
    contact), a regulariser.

    Data rows are added by `add_rows` and `add_points`; `regular` acts on each coordinate alike.
    """

    blocks: Float[Tensor, "V 3 3"]
    right: Float[Tensor, "V 3"]
    regular: sparse.csr_matrix
    """(V, V), symmetric, positive definite."""
    corners: Int[Tensor, "n 6"]
    coupling: Float[Tensor, "n 6 3 3"]
    """Per row of points: one 3 x 3 matrix for each corner, square root of the weight included."""

    @classmethod
    def empty(cls, like: Float[Tensor, "V 3"], regular: sparse.csr_matrix) -> "OffsetSystem":
        """No data yet, with the device and precision of `like`."""
        none = torch.zeros(0, _CORNERS, dtype=torch.long, device=like.device)
        coupling = like.new_zeros(0, _CORNERS, 3, 3)
        return cls(like.new_zeros(len(like), 3, 3), torch.zeros_like(like), regular, none, coupling)

    def add_rows(
        self,
        vertex: Int[Tensor, " n"],
        direction: Float[Tensor, "n 3"],
        value: Float[Tensor, " n"],
        weight: Float[Tensor, " n"],
    ) -> None:
        """Equations direction . d[vertex] = value."""
        weighted = direction * weight[:, None]
        self.blocks.index_add_(0, vertex, weighted[:, :, None] * direction[:, None])
        self.right.index_add_(0, vertex, weighted * value[:, None])

    def add_points(
        self,
        corners: Int[Tensor, "n k"],
        matrices: Float[Tensor, "n k 3 3"],
        value: Float[Tensor, "n 3"],
        weight: Float[Tensor, " n"],
    ) -> None:
        """Equations sum_k matrices[:, k] d[corners[:, k]] = value, one weight for the three rows of a point; at most
        six corners."""
        missing = _CORNERS - corners.shape[1]
        corners = torch.nn.functional.pad(corners, (0, missing))
        matrices = torch.nn.functional.pad(matrices, (0, 0, 0, 0, 0, missing))
        root = weight.sqrt()
        coupling = matrices * root[:, None, None, None]
        pull = torch.einsum("nkab,na->nkb", coupling, value * root[:, None])
        self.right.index_add_(0, corners.reshape(-1), pull.reshape(-1, 3))
        self.corners, self.coupling = torch.cat([self.corners, corners]), torch.cat([self.coupling, coupling])

    def solve(self, start: Float[Tensor, "V 3"]) -> Float[Tensor, "V 3"]:
        """The offsets; `start` is where the iterative solver begins."""
        if self.right.device.type == "cpu":
            factors = splu(self.matrix(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
            return torch.as_tensor(factors.solve(self.right.numpy().reshape(-1)).reshape(-1, 3))
        return self.solve_iteratively(start)

    def matrix(self) -> sparse.csc_matrix:
        """(3V, 3V)."""
        count = len(self.blocks)
        data = sparse.bsr_matrix(
            (self.blocks.cpu().numpy(), np.arange(count), np.arange(count + 1)), shape=(3 * count, 3 * count)
        )
        total = data + sparse.kron(self.regular, sparse.identity(3))
        if len(self.corners):
            rows = np.arange(3 * len(self.corners)).reshape(-1, 1, 3, 1)
            columns = self.corners.cpu().numpy()[:, :, None, None] * 3 + np.arange(3)
            values = self.coupling.cpu().numpy()
            rows, columns = np.broadcast_to(rows, values.shape), np.broadcast_to(columns, values.shape)
            points = sparse.csr_matrix(
                (values.ravel(), (rows.ravel(), columns.ravel())), shape=(3 * len(self.corners), 3 * count)
            )
            total = total + points.T @ points
        return total.tocsc()

    def solve_iteratively(
        self, start: Float[Tensor, "V 3"], tolerance: float = 1e-7, iterations: int = 5000
    ) -> Float[Tensor, "V 3"]:
        """Conjugate gradients, preconditioned by the diagonal's 3 x 3 blocks; looks at the residual every 25 rounds."""
        regular = self._regular_on_device()
        diagonal = torch.as_tensor(self.regular.diagonal()).to(self.right)
        blocks = self.blocks + torch.diag_embed(diagonal[:, None].expand(-1, 3))
        if len(self.corners):
            own = torch.einsum("nkab,nkac->nkbc", self.coupling, self.coupling)
            blocks = blocks.index_add(0, self.corners.reshape(-1), own.reshape(-1, 3, 3))
        inverse = torch.linalg.inv(blocks)

        def apply(x: Tensor) -> Tensor:
            out = regular @ x + torch.bmm(self.blocks, x[..., None])[..., 0]
            if len(self.corners):
                rows = torch.einsum("nkab,nkb->na", self.coupling, x[self.corners])
                back = torch.einsum("nkab,na->nkb", self.coupling, rows)
                out.index_add_(0, self.corners.reshape(-1), back.reshape(-1, 3))
            return out

        found = start.clone()
        residual = self.right - apply(found)
        goal = tolerance * self.right.norm()
        direction = torch.bmm(inverse, residual[..., None])[..., 0]
        energy = (residual * direction).sum()
        for iteration in range(iterations):
            if iteration % 25 == 0 and bool(residual.norm() <= goal):
                break
            moved = apply(direction)
            length = energy / (direction * moved).sum()
            found = found + length * direction
            residual = residual - length * moved
            improved = torch.bmm(inverse, residual[..., None])[..., 0]
            before, energy = energy, (residual * improved).sum()
            direction = improved + (energy / before) * direction
        return found

    def _regular_on_device(self) -> Tensor:
        matrix = self.regular.tocsr()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # torch remarks on the layout, and on its own checks
            return torch.sparse_csr_tensor(
                torch.as_tensor(matrix.indptr, dtype=torch.long),
                torch.as_tensor(matrix.indices, dtype=torch.long),
                torch.as_tensor(matrix.data),
                size=matrix.shape,
                check_invariants=False,
            ).to(self.right)
