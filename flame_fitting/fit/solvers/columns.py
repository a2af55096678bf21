"""Which coefficients a second-order solver moves, and where each stands in its unknowns."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from flame_fitting.fit.parameters import PARAMETERS, FitParameters, Part
from flame_fitting.fit.solvers.block_arrow import BlockVector
from flame_fitting.head.model import HeadModel


@dataclass(frozen=True)
class Block:
    """Coefficients of one part in a row of unknowns."""

    part: Part
    parameter: str
    coefficients: slice
    """Along the parameter's last dimension."""
    columns: slice
    """In the unknowns of one timestep: those that all timesteps share, then its own."""


@dataclass(frozen=True)
class Columns:
    """The unknowns of one timestep. Those that are shared (identity and cameras) come first."""

    shared: tuple[Block, ...]
    frame: tuple[Block, ...]
    metric: bool = False
    """Whether unknowns that the scale stretches count in the reference frame: times the scale.

    Else the joint mode of all is biased, more certainly the more timesteps share the scale (Neyman and Scott 1948):
    their priors shrink them, and a larger head with weaker expressions and smaller steps shows the same at a smaller
    cost. In the reference frame the data are linear in them whatever the scale, which leaves their priors no say in it.
    """

    @classmethod
    def of(
        cls,
        head: HeadModel,
        names: Collection[str],
        components: Mapping[str, int] | None = None,
        metric: bool = False,
    ) -> "Columns":
        """Columns of the parts named (or of whole parameters), in the order of `PARAMETERS`.

        Of `shape` and `expr` only so many coefficients move as `components` says, from the first on. Offsets
        have solvers of their own.
        """
        blocks: dict[bool, list[Block]] = {False: [], True: []}
        start = 0
        # shared ones come first
        for parameter in sorted(PARAMETERS, key=lambda p: p.role == "frame"):
            if parameter.name.endswith("_offset"):
                continue
            width = parameter.dims(head, 1)[-1]
            most = min(width, (components or {}).get(parameter.name, width))
            for part in parameter.parts:
                first, last, _ = part.span.indices(width)
                count = min(last, most) - first
                if count > 0 and (part.name in names or parameter.name in names):
                    columns = slice(start, start + count)
                    block = Block(part, parameter.name, slice(first, first + count), columns)
                    blocks[parameter.role == "frame"].append(block)
                    start += count
        return cls(tuple(blocks[False]), tuple(blocks[True]), metric)

    def frames_alone(self) -> "Columns":
        """Those of the timesteps only."""
        start = self.n_shared
        blocks = [replace(b, columns=slice(b.columns.start - start, b.columns.stop - start)) for b in self.frame]
        return Columns((), tuple(blocks), self.metric)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All of one timestep."""
        return self.shared + self.frame

    @cached_property
    def n_shared(self) -> int:
        """Unknowns that all timesteps share."""
        return max((block.columns.stop for block in self.shared), default=0)

    @cached_property
    def count(self) -> int:
        """Unknowns of one timestep, with those that are shared."""
        return max((block.columns.stop for block in self.blocks), default=0)

    def slices(self) -> dict[str, slice]:
        """Columns of each part."""
        return {block.part.name: block.columns for block in self.blocks}

    def coefficients(self, parameter: str) -> int:
        """How many of a parameter's coefficients move, all parts together."""
        return sum(b.columns.stop - b.columns.start for b in self.blocks if b.parameter == parameter)

    def values(self, parameters: FitParameters) -> BlockVector:
        """Where the unknowns are: (S,) shared, (T, F) of the frames."""
        like, steps = parameters.expr, parameters.timesteps
        shared = [getattr(parameters, block.parameter)[block.coefficients] for block in self.shared]
        frames = [
            getattr(parameters, block.parameter)[:, block.coefficients] * self.unit(block, parameters)
            for block in self.frame
        ]
        return BlockVector(torch.cat([like.new_zeros(0), *shared]), torch.cat([like.new_zeros(steps, 0), *frames], 1))

    def with_values(self, parameters: FitParameters, values: BlockVector) -> FitParameters:
        """The parameters with other values of the unknowns."""
        out: dict[str, Tensor] = {}
        for block, moved in zip(self.blocks, self.split(values), strict=True):
            out.setdefault(block.parameter, getattr(parameters, block.parameter).detach().clone())
            # what is shared, the scale with it, comes first
            placed = replace(parameters, placement=out.get("placement", parameters.placement))
            out[block.parameter][..., block.coefficients] = moved / self.unit(block, placed)
        return replace(parameters, **out)

    def unit(self, block: Block, parameters: FitParameters) -> Tensor | float:
        """What a block's coefficients are multiplied by in the unknowns."""
        return parameters.placement[6].exp() if self.metric and block.part.stretched else 1.0

    def split(self, values: BlockVector) -> list[Tensor]:
        """Views of the part of each block: (n,) of shared ones, (T, n) of the frames'."""
        start = self.n_shared
        shared = [values.shared[block.columns] for block in self.shared]
        own = [values.frames[:, block.columns.start - start : block.columns.stop - start] for block in self.frame]
        return shared + own
