"""One process, or several through accelerate: each takes a share of a step, the loss and its gradient are of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import MissingDependency


class World(Protocol):
    """The processes that train together."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    @property
    def main(self) -> bool:
        """Whether this one writes."""
        ...

    def whole(self, mine: Tensor, count: int) -> Tensor:
        """Values [count] of all processes from rows ``rank::size`` of this one, which alone keep their gradients."""
        ...

    def mean_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its mean over all processes."""
        ...

    def first(self, told: bool) -> bool:
        """What the first process says, in all of them."""
        ...

    def precision(self, name: str, device: torch.device) -> AbstractContextManager[Any]:
        """Forwards in this precision."""
        ...


class Alone:
    """One process."""

    rank, size, main = 0, 1, True

    def whole(self, mine: Tensor, count: int) -> Tensor:
        """Its own."""
        return mine

    def mean_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Nothing to do."""

    def first(self, told: bool) -> bool:
        """Its own."""
        return told

    def precision(self, name: str, device: torch.device) -> AbstractContextManager[Any]:
        """Autocast to bf16, or nothing."""
        return torch.autocast(device.type, torch.bfloat16) if name == "bf16" else nullcontext()


class Accelerated(Alone):
    """Processes started by ``accelerate launch``.

    Raises:
        MissingDependency: accelerate is not installed.
    """

    def __init__(self) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            remedy = "pip install 'latent-critic[train,diffusers]'"
            raise MissingDependency("accelerate for several processes", "no module accelerate", remedy) from error
        self._accelerator = Accelerator()
        self.rank = self._accelerator.process_index
        self.size = self._accelerator.num_processes
        self.main = self._accelerator.is_main_process

    @property
    def device(self) -> torch.device:
        """This process's own."""
        return self._accelerator.device

    def whole(self, mine: Tensor, count: int) -> Tensor:
        """Values [count] of all processes from rows ``rank::size`` of this one, which alone keep their gradients.

        A loss of the whole, differentiated in each process, gives gradients whose sum over processes is the whole's.
        """
        most = math.ceil(count / self.size)
        padded = torch.zeros(most, device=self.device)
        padded[: len(mine)] = mine.detach()
        gathered: Any = self._accelerator.gather(padded)
        found = gathered.view(self.size, most).T.reshape(-1)[:count].to(mine.device, mine.dtype)
        found[self.rank :: self.size] = mine
        return found

    def mean_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its mean over all processes; absent ones count as 0."""
        for parameter in parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            total: Any = self._accelerator.reduce(gradient.to(self.device), reduction="mean")
            parameter.grad = total.to(parameter.device)

    def first(self, told: bool) -> bool:
        """What the first process says, in all of them: by their own clocks they would stop at different steps."""
        said = torch.tensor(float(told and self.main), device=self.device)
        found: Any = self._accelerator.reduce(said, reduction="sum")
        return bool(found > 0)
