"""Adam with all of its state on the device.

Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1. torch's own is not used because
its import alone (torch._dynamo) takes longer than all steps of a fit on a GPU.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flame_fitting.fit.losses.photometric import kernels
from flame_fitting.fit.solvers.changing import Changing

BETAS = (0.9, 0.999)


@dataclass(eq=False)
class _Moving:
    parameter: Tensor
    rate: float
    eps: float
    mean: Tensor
    square: Tensor


class Adam:
    """Moves tensors along their gradients. A CUDA graph can hold a step: number and rate are tensors."""

    def __init__(self, parameters: list[tuple[Tensor, float, float]]) -> None:
        """Each a contiguous tensor, its step size and its eps.

        Gradients are matched to parameters as they lie in memory (the fused kernel knows no strides).
        """
        if not all(tensor.is_contiguous() for tensor, _, _ in parameters):
            raise ValueError("Adam moves contiguous tensors only")
        self._moving = [
            _Moving(tensor.detach(), rate, eps, torch.zeros_like(tensor), torch.zeros_like(tensor))
            for tensor, rate, eps in parameters
        ]
        device = self._moving[0].parameter.device
        self._count, self._factor = torch.zeros((), device=device), torch.ones((), device=device)

    def set_factor(self, factor: float) -> None:
        """Share of the step sizes that the next steps take."""
        self._factor.fill_(factor)

    def changing(self) -> Changing:
        """What steps write: the tensors that it moves, and its moments."""
        out: Changing = {"count": self._count}
        for number, moving in enumerate(self._moving):
            out |= {f"{number}/{name}": getattr(moving, name) for name in ("parameter", "mean", "square")}
        return out

    @torch.no_grad()
    def step(self, gradients: list[Tensor], active: Tensor | None = None) -> None:
        """One step, in place; gradients in the order of the parameters.

        Of the first parameter only what is `active` (bool) moves; the rest keeps its moments, too, as what no picture
        of a step shows must.
        """
        self._count += 1
        for number, (moving, gradient) in enumerate(zip(self._moving, gradients, strict=True)):
            if active is None or number > 0:
                self._move(moving, gradient)
                continue
            tensors = (moving.parameter, moving.mean, moving.square)
            before = [tensor.clone() for tensor in tensors]
            self._move(moving, gradient)
            for tensor, old in zip(tensors, before, strict=True):
                tensor.copy_(torch.where(active, tensor, old))

    def _move(self, moving: _Moving, gradient: Tensor) -> None:
        fused = kernels(moving.parameter)
        if fused is not None:
            fused.adam_step(
                moving.parameter,
                gradient,
                moving.mean,
                moving.square,
                self._count,
                self._factor,
                moving.rate,
                BETAS,
                moving.eps,
            )
            return
        moving.mean.lerp_(gradient, 1 - BETAS[0])
        moving.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        # 1 - beta^t without cancellation
        first, second = (-torch.expm1(self._count * math.log(beta)) for beta in BETAS)
        step = moving.mean / first / (moving.square / second).sqrt_().add_(moving.eps)
        moving.parameter.sub_(step * (moving.rate * self._factor))
