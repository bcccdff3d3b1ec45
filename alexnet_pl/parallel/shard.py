"""One net over several processes: which part of each layer a process has, and where processes exchange activations.

`parallelize` takes the plain net of model/build.py and leaves each process its part. A layer's weights become a DTensor
with the name and the global shape they had, so that a checkpoint is the same whatever the parallelism. What is computed
is local: ordinary kernels on the local part. Processes communicate in `AllGather` and `AllToAll` only.

Two rules make gradients right. Where parts are gathered and each process goes on to do *different* work with the
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

from alexnet_pl.data.loader import BatchSlice
from alexnet_pl.model.layers import LocalConv2d, TowerLinear, memory_format
from alexnet_pl.model.specs import LayerSpec
from alexnet_pl.parallel.layouts import Layout


class CurrentSlice:
    """This process's slice of the batch that the net sees, in inputs of the net; layers read it as they need it.

    The LightningModule sets `slice` before each batch. With several views of an image, each view is an input.
    """

    slice: BatchSlice


def parallelize(
    net: nn.Sequential, plan: list[LayerSpec], layout: Layout, mesh: DeviceMesh | None, current: CurrentSlice
) -> None:
    """Leave this process its part of a net, in place.

    Args:
        net: the same on all processes, of model.build.
        plan: its layers, of model.specs.
        mesh: the processes, ("data_parallel", "tensor_parallel") as Lightning calls them; None for single and ddp.
        current: holds the slice of each batch before the net sees it.
    """
    if layout.name in ("towers", "towers_ddp"):
        assert mesh is not None
        _split_towers(net, plan, mesh, current)
    elif layout.name == "owt":
        assert mesh is not None
        _apply_one_weird_trick(net, plan, mesh["data_parallel"], current)
    elif layout.name == "ddp":
        for spec in plan:
            if spec.kind == "dropout":
                setattr(net, spec.name, SharedDropout(net.get_submodule(spec.name), current, rows=True))


def _split_towers(net: nn.Sequential, plan: list[LayerSpec], mesh: DeviceMesh, current: CurrentSlice) -> None:
    """Leave each process of a tower group one tower: half 0 or half 1 of a layer's kernels, one of its two groups."""
    tower = mesh["tensor_parallel"]
    placements = (Replicate(), Shard(0))
    # over the processes with the same tower, the gradients of their slices of the batch are summed
    gradients = (Partial("sum"), Shard(0)) if mesh["data_parallel"].size() > 1 else None
    for spec in plan:
        module: Any = net.get_submodule(spec.name)
        if spec.parameters:
            groups = spec.groups // tower.size() if spec.groups > 1 else 1
            gather = AllGather(tower, 1) if spec.crossing else None
            setattr(net, spec.name, ShardedLayer(module, mesh, placements, gradients, groups, gather))
        elif spec.kind == "lrn":
            module.towers = 1
        elif spec.kind == "dropout":
            setattr(net, spec.name, SharedDropout(module, current, rows=True, columns=tower))
    net.append(AllGather(tower, 1, same_work_after=True))  # the classes; each process computes the whole loss


def _apply_one_weird_trick(net: nn.Sequential, plan: list[LayerSpec], mesh: DeviceMesh, current: CurrentSlice) -> None:
    """Copy convolutions, each for its own images; split fully connected layers by units, each for all images."""
    gathered = False  # whether each process has the whole batch by now
    for spec in plan:
        module: Any = net.get_submodule(spec.name)
        if spec.kind == "full":
            gather = AllGather(mesh, 1) if gathered else AllGatherBatch(mesh, current)
            gathered = True
            setattr(net, spec.name, ShardedLayer(module, mesh, (Shard(0),), None, 1, gather))
        elif spec.parameters:
            setattr(net, spec.name, ShardedLayer(module, mesh, (Replicate(),), (Partial("sum"),), spec.groups))
        elif spec.kind == "dropout":
            part = {"columns": mesh} if gathered else {"rows": True}
            setattr(net, spec.name, SharedDropout(module, current, **part))
    net.append(AllToAll(mesh, current))


# ------------------------------------------------------------------------------------------------ layers


class ShardedLayer(nn.Module):
    """A layer with weights of which this process has a part of the kernels, or a copy of them all.

    Args:
        layer: the whole layer.
        placements: how its weights, and by dim 0 its biases, lie over the mesh.
        gradients: how the gradients of the local part lie over the mesh where that is not the same: Partial where
            processes have copies, each with the gradient of its own images. The backward pass sums them.
        groups: of a convolution, the number of its groups that are here.
        gather: gathers the processes' inputs first.
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
        gather: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.gradients, self.gather = gradients, gather
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
        """Return this process's maps or units, of its images."""
        if self.gather is not None:
            x = self.gather(x)
        return self.compute(x, self._local(self.weight), self._local(self.bias))

    def _local(self, p: DTensor) -> Tensor:
        """Return the local part of a parameter, and lay its gradient over the mesh in the backward pass."""
        if self.gradients is None:
            return p.to_local()
        return p.redistribute(placements=p.placements).to_local(grad_placements=self.gradients)


class SharedDropout(nn.Module):
    """Dropout where this process has a slice of the batch (`rows`), of the units (`columns`), or of both.

    The mask is drawn for all images and all units, from a generator that is in step on all processes, and each takes
    its part: the masks do not depend on the parallelism.
    """

    def __init__(
        self, dropout: nn.Module, current: CurrentSlice, rows: bool = False, columns: DeviceMesh | None = None
    ) -> None:
        super().__init__()
        self.dropout, self.current, self.rows, self.columns = dropout, current, rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """(n, units) or (n, maps, height, width) -> the same."""
        if not self.training:
            return self.dropout(x)
        units = x.shape[1] * (self.columns.size() if self.columns else 1)
        channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        own = self.current.slice
        ones = x.new_ones(own.of, units, *x.shape[2:])
        mask = self.dropout(ones.contiguous(memory_format=memory_format(channels_last)))
        if self.columns:
            mask = mask.chunk(self.columns.size(), 1)[self.columns.get_local_rank()]
        if self.rows:
            return x * mask[own.first : own.last]
        return x * F.pad(mask, (0, 0, 0, len(x) - len(mask)))  # rows that only fill up the last slice


# ------------------------------------------------------------------------------------------------ collectives


class AllGather(nn.Module):
    """Put the processes' parts together along a dimension.

    Backward: the sum of the gradients, or, with `same_work_after`, this process's part of the gradient it has.
    """

    def __init__(self, mesh: DeviceMesh, dim: int, same_work_after: bool = False) -> None:
        super().__init__()
        self.mesh, self.dim, self.same_work_after = mesh, dim, same_work_after

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, ...) -> (..., n * processes, ...), with the memory format it had."""
        if self.dim == 1 and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
            return self._gather(x.permute(0, 2, 3, 1), 3).permute(0, 3, 1, 2)
        return self._gather(x, self.dim)

    def _gather(self, x: Tensor, dim: int) -> Tensor:
        whole = DTensor.from_local(x, self.mesh, [Shard(dim)], run_check=False).redistribute(placements=[Replicate()])
        return whole.to_local(grad_placements=[Replicate() if self.same_work_after else Partial("sum")])


class AllGatherBatch(AllGather):
    """Put the slices of the batch together, each filled up with zeros to the size of a full one."""

    def __init__(self, mesh: DeviceMesh, current: CurrentSlice) -> None:
        super().__init__(mesh, 0)
        self.current = current

    def forward(self, x: Tensor) -> Tensor:
        """(n, units) -> (full * processes, units); what fills up comes last."""
        return super().forward(F.pad(x, (0, 0, 0, self.current.slice.full - len(x))))


class AllToAll(nn.Module):
    """Go from some classes of all images to all classes of this process's images."""

    def __init__(self, mesh: DeviceMesh, current: CurrentSlice) -> None:
        super().__init__()
        self.mesh, self.current = mesh, current

    def forward(self, x: Tensor) -> Tensor:
        """(full * processes, classes / processes) -> (n, classes)."""
        parts = _Exchange.apply(x.unflatten(0, (self.mesh.size(), -1)).contiguous(), self.mesh.get_group())
        logits = parts.transpose(0, 1).flatten(1)  # (full, classes)
        own = self.current.slice
        return logits[: own.last - own.first]


class _Exchange(torch.autograd.Function):
    """Send part i of the first dimension to process i, which puts it at this process's number.

    It is its own inverse, and so its own backward. DTensor has no such exchange for CPUs.
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
