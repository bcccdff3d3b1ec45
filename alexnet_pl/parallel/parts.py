"""The parameters of one net over several processes: parts and copies, their gradients, and whole tensors.

Parameters are ordinary tensors, and a layer computes with the part that is here. The whole matters twice only: before
an update, and in a checkpoint, which is the same for every layout.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh


class Parts:
    """How the parameters of this process relate to those of the others.

    A parameter in `split` is divided by rows over the `across` mesh, equally and in the order of ranks. A parameter in
    `copied` has a copy on each process of the `among` mesh, with a gradient of that process's images.
    """

    def __init__(self) -> None:
        self.split: set[nn.Parameter] = set()
        self.copied: list[nn.Parameter] = []
        self.across: DeviceMesh | None = None
        self.among: DeviceMesh | None = None

    def split_rows(self, layer: nn.Module, mesh: DeviceMesh) -> None:
        """Cut a layer's weights and biases to this process's rows, along their first dimension."""
        self.across = mesh
        for p in layer.parameters(recurse=False):
            p.data = _rows(p.data, mesh)
            self.split.add(p)

    def copy(self, layer: nn.Module, mesh: DeviceMesh) -> None:
        """Note that all processes of a mesh have a copy of this layer's parameters; all drew the same weights."""
        if mesh.size() > 1:
            self.among = mesh
            self.copied += layer.parameters(recurse=False)

    @torch.no_grad()
    def sum_gradients(self) -> None:
        """Sum the gradients of the copies, all at once; every process must call this before an update."""
        gradients = [p.grad for p in self.copied if p.grad is not None]
        if self.among and gradients:
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat, group=self.among.get_group())
            for g, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                g.copy_(summed.view(g.shape))

    @torch.no_grad()
    def clip_norm(self, parameters: list[nn.Parameter], largest: float) -> None:
        """Scale the gradients so that their norm, over all of the net, is at most `largest`."""
        here = [p.grad for p in parameters if p.grad is not None and p not in self.split]
        there = [p.grad for p in parameters if p.grad is not None and p in self.split]
        square = nn.utils.get_total_norm(there) ** 2
        if self.across:
            dist.all_reduce(square, group=self.across.get_group())
        total = (square + nn.utils.get_total_norm(here).to(square) ** 2).sqrt()
        nn.utils.clip_grads_with_norm_(parameters, largest, total)

    def rows_here(self, whole: Tensor, parameter: Tensor) -> Tensor:
        """Return this process's part of a whole tensor that is divided as a parameter is."""
        return _rows(whole, self.across) if self.across and parameter in self.split else whole

    @torch.no_grad()
    def gather_rows(self, value: Tensor, parameter: Tensor, alive: list[Any]) -> Tensor:
        """Return on the first process the whole of a tensor that is divided as a parameter is; others get their part.

        Args:
            alive: list that keeps the sent tensors in memory until the caller releases them.
        """
        if self.across is None or parameter not in self.split:
            return value
        group, size = self.across.get_group(), self.across.size()
        if dist.get_global_rank(group, 0) != 0:  # the group with the first process has the same
            return value
        value = value.contiguous()
        whole = value.new_empty(size * len(value), *value.shape[1:]) if dist.get_rank() == 0 else None
        parts = None if whole is None else list(whole.chunk(size))
        dist.gather(value, parts, group=group, group_dst=0)
        alive += [value, parts]
        return value if whole is None else whole


def _rows(whole: Tensor, mesh: DeviceMesh) -> Tensor:
    return whole.chunk(mesh.size())[mesh.get_local_rank()].clone()
