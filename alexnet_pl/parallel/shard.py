"""One net over several processes: which part of each layer a process has, and where they exchange what they made.

`spread` takes the plain net of model.py and gives each process its part. A layer's weights become a DTensor with the
name and the global shape they had, so that a checkpoint is the same whatever the layout; what is computed is local:
ordinary kernels on the part that is here. Processes meet in `Gather` and `Scatter` only.

Two rules make gradients right. Where parts are put together and each process goes on to do *different* work with the
whole (its own kernels of the next layer), the gradients that come back are parts of a sum: they are summed. Where each
does the *same* work (the loss, over all classes), each has the whole gradient already and takes its own part.
`tests/parallel/test_shard.py` shows what the wrong choice does; one of them only doubles the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

from alexnet_pl.model.layers import LocalConv2d, TowerLinear
from alexnet_pl.model.specs import LayerSpec
from alexnet_pl.parallel.layouts import Layout


class Batch:
    """The batch under way, in equal parts for the processes that share it; the last parts may be smaller or empty."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.begin(0)

    def begin(self, images: int, views: int = 1) -> None:
        """Images over all processes, and inputs of the net made of each."""
        self.inputs = images * views
        self.part = -(-images // self.size) * views
        """inputs of a full part"""
        first = min(self.rank * self.part, self.inputs)
        self.own = slice(first, min(first + self.part, self.inputs))
        """this process's inputs among them"""


def parallelize(
    net: nn.Sequential, plan: list[LayerSpec], where: Layout, mesh: DeviceMesh | None, batch: Batch
) -> None:
    """Leave this process its part of a net, in place.

    Args:
        net: the same on all processes, of model.build.
        plan: its steps, of table.steps.
        mesh: the processes, ("data_parallel", "tensor_parallel") as Lightning calls them; None for single and ddp.
        batch: to be told of each batch before the net sees it.
    """
    if where.name in ("towers", "towers_ddp"):
        assert mesh is not None
        _towers(net, plan, mesh, batch)
    elif where.name == "owt":
        assert mesh is not None
        _one_weird_trick(net, plan, mesh["data_parallel"], batch)
    elif where.name == "ddp":
        for step in plan:
            if step.kind == "dropout":
                setattr(net, step.name, SharedDropout(net.get_submodule(step.name), batch, rows=True))


def _towers(net: nn.Sequential, plan: list[LayerSpec], mesh: DeviceMesh, batch: Batch) -> None:
    """One tower for each process of a tower group: half 0 and half 1 of a layer's kernels are its two groups."""
    tower = mesh["tensor_parallel"]
    parts = (Replicate(), Shard(0))
    # over the processes with the same tower, the gradients of their parts of the batch are summed
    gradients = (Partial("sum"), Shard(0)) if mesh["data_parallel"].size() > 1 else None
    for step in plan:
        module: Any = net.get_submodule(step.name)
        if step.parameters:
            groups = step.groups // tower.size() if step.groups > 1 else 1
            meets = AllGather(tower, 1) if step.crossing else None
            setattr(net, step.name, ShardedLayer(module, mesh, parts, gradients, groups, meets))
        elif step.kind == "lrn":
            module.towers = 1
        elif step.kind == "dropout":
            setattr(net, step.name, SharedDropout(module, batch, rows=True, columns=tower))
    net.append(AllGather(tower, 1, same_work_after=True))  # the classes; each process computes the whole loss


def _one_weird_trick(net: nn.Sequential, plan: list[LayerSpec], mesh: DeviceMesh, batch: Batch) -> None:
    """Convolutions: copies, each for its own images. Fully connected: columns, for the images of all."""
    shared = False  # whether the batch has been put together by now
    for step in plan:
        module: Any = net.get_submodule(step.name)
        if step.kind == "full":
            meets = AllGather(mesh, 1) if shared else AllGatherBatch(mesh, batch)
            shared = True
            setattr(net, step.name, ShardedLayer(module, mesh, (Shard(0),), None, 1, meets))
        elif step.parameters:
            setattr(net, step.name, ShardedLayer(module, mesh, (Replicate(),), (Partial("sum"),), step.groups))
        elif step.kind == "dropout":
            part = {"columns": mesh} if shared else {"rows": True}
            setattr(net, step.name, SharedDropout(module, batch, **part))
    net.append(AllToAll(mesh, batch))


# ------------------------------------------------------------------------------------------------ layers


class ShardedLayer(nn.Module):
    """A layer with weights of which this process has a part of the kernels, or a copy of them all.

    Args:
        layer: the whole layer.
        placements: how its weights, and by dim 0 its biases, lie over the mesh.
        gradients: how the gradients of the local part lie over the mesh where that is not the same: Partial where
            processes have copies, each with the gradient of its own images. The backward pass sums them.
        groups: of a convolution, of those that are here.
        meets: what puts the processes' inputs together first.
    """

    weight: DTensor
    bias: DTensor
    compute: Callable[[Tensor, Tensor, Tensor], Tensor]

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear | TowerLinear | LocalConv2d,
        mesh: DeviceMesh,
        placements: tuple[Placement, ...],
        gradients: tuple[Placement, ...] | None,
        groups: int,
        meets: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.gradients, self.meets = gradients, meets
        # all processes drew the same weights: nothing is sent
        for name, p in list(layer.named_parameters()):
            whole = p.detach().contiguous()
            self.register_parameter(
                name, nn.Parameter(distribute_tensor(whole, mesh, placements, src_data_rank=None), p.requires_grad)
            )
        if isinstance(layer, nn.Conv2d):
            self.compute = partial(
                F.conv2d, stride=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=groups
            )
        elif isinstance(layer, nn.Linear | TowerLinear):  # of towers, one is here
            self.compute = F.linear
        else:
            self.compute = layer.compute

    def forward(self, x: Tensor) -> Tensor:
        """This process's maps or units, of its images."""
        if self.meets is not None:
            x = self.meets(x)
        return self.compute(x, self._here(self.weight), self._here(self.bias))

    def _here(self, p: DTensor) -> Tensor:
        if self.gradients is None:
            return p.to_local()
        return p.redistribute(placements=p.placements).to_local(grad_placements=self.gradients)


class SharedDropout(nn.Module):
    """Dropout where this process has a part of the batch, of the units, or of both.

    The mask is drawn for all images and all units, from a generator that is in step on all processes, and each takes
    its part: the masks do not depend on the layout.
    """

    def __init__(self, dropout: nn.Module, batch: Batch, rows: bool = False, columns: DeviceMesh | None = None) -> None:
        super().__init__()
        self.dropout, self.batch, self.rows, self.columns = dropout, batch, rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """(n, units) or (n, maps, height, width) -> the same."""
        if not self.training:
            return self.dropout(x)
        units = x.shape[1] * (self.columns.size() if self.columns else 1)
        dense = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if dense else torch.contiguous_format
        ones = x.new_ones(self.batch.inputs, units, *x.shape[2:])
        mask = self.dropout(ones.contiguous(memory_format=layout))
        if self.columns:
            mask = mask.chunk(self.columns.size(), 1)[self.columns.get_local_rank()]
        if self.rows:
            return x * mask[self.batch.own]
        return x * F.pad(mask, (0, 0, 0, len(x) - len(mask)))  # rows that only fill up the last part


# ------------------------------------------------------------------------------------------------ exchanges


class AllGather(nn.Module):
    """Put the processes' parts together along a dimension. Backward: the sum of the gradients, or, with
    `same_work_after`, this process's part of the gradient it has."""

    def __init__(self, mesh: DeviceMesh, dim: int, same_work_after: bool = False) -> None:
        super().__init__()
        self.mesh, self.dim, self.same_work_after = mesh, dim, same_work_after

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, ...) -> (..., n * processes, ...), with the memory layout it had."""
        if self.dim == 1 and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
            return self._gather(x.permute(0, 2, 3, 1), 3).permute(0, 3, 1, 2)
        return self._gather(x, self.dim)

    def _gather(self, x: Tensor, dim: int) -> Tensor:
        whole = DTensor.from_local(x, self.mesh, [Shard(dim)], run_check=False).redistribute(placements=[Replicate()])
        return whole.to_local(grad_placements=[Replicate() if self.same_work_after else Partial("sum")])


class AllGatherBatch(AllGather):
    """Put the parts of the batch together, each filled up with zeros to the size of a full one."""

    def __init__(self, mesh: DeviceMesh, batch: Batch) -> None:
        super().__init__(mesh, 0)
        self.batch = batch

    def forward(self, x: Tensor) -> Tensor:
        """(n, units) -> (part * processes, units); what fills up comes last."""
        return super().forward(F.pad(x, (0, 0, 0, self.batch.part - len(x))))


class AllToAll(nn.Module):
    """From some classes of all images to all classes of this process's images."""

    def __init__(self, mesh: DeviceMesh, batch: Batch) -> None:
        super().__init__()
        self.mesh, self.batch = mesh, batch

    def forward(self, x: Tensor) -> Tensor:
        """(part * processes, classes / processes) -> (n, classes)."""
        parts = _Exchange.apply(x.unflatten(0, (self.mesh.size(), -1)).contiguous(), self.mesh.get_group())
        own = parts.transpose(0, 1).flatten(1)  # (part, classes)
        return own[: self.batch.own.stop - self.batch.own.start]


class _Exchange(torch.autograd.Function):
    """Part i of the first dimension goes to process i, which has it as part of this process's number: its own reverse.

    DTensor has no such exchange for CPUs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        out = torch.empty_like(g, memory_format=torch.contiguous_format)
        dist.all_to_all_single(out, g.contiguous(), group=ctx.group)
        return out, None
