"""Divide one net over several processes: give each its part of the layers, and exchange activations between them.

`parallelize` cuts the plain net of model/build.py to the part of this process: the same layers with fewer kernels, and
exchanges as layers between them. Parameters keep their names; `Parts` knows the whole ones. Processes communicate in
`AllGather` and `AllToAll` only, and once before each update.

Two rules make gradients right after parts are gathered. Each process may do *different* work with the whole, as for
its own kernels of the next layer. Then the gradients that come back are parts of a sum, so sum them. Or each does the
*same* work, as for the loss over all classes. Then each has the whole gradient already, and takes its own part of it.
`tests/parallel/test_shard.py` shows the effect of the wrong choice; one of them only doubles the learning rate.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from alexnet_pl.data.loader import BatchSlice
from alexnet_pl.model.layers import memory_format
from alexnet_pl.model.specs import LayerSpec
from alexnet_pl.parallel.layouts import Layout
from alexnet_pl.parallel.parts import Parts


class CurrentSlice:
    """Holds this process's slice of the current batch, counted in inputs of the net, for layers that need it.

    The LightningModule sets `slice` before each batch. With several views of an image, each view is an input.
    """

    slice: BatchSlice


def parallelize(
    net: nn.Sequential, plan: list[LayerSpec], layout: Layout, mesh: DeviceMesh | None, current: CurrentSlice
) -> Parts:
    """Cut a net to the part of this process, in place; return how it relates to the others' parts.

    Args:
        net: a net of model/build.py, the same on all processes.
        plan: its layers, from model/specs.py.
        mesh: the processes, ("data_parallel", "tensor_parallel") as Lightning calls them; None for single and ddp.
        current: holds the slice of each batch before the net sees it.
    """
    parts = Parts()
    if layout.name in ("towers", "towers_ddp"):
        assert mesh is not None
        _split_towers(net, plan, mesh, current, parts)
    elif layout.name == "owt":
        assert mesh is not None
        _apply_one_weird_trick(net, plan, mesh["data_parallel"], current, parts)
    elif layout.name == "ddp":
        for spec in plan:
            if spec.kind == "dropout":
                setattr(net, spec.name, SharedDropout(net.get_submodule(spec.name), current, rows=True))
    return parts


def _split_towers(
    net: nn.Sequential, plan: list[LayerSpec], mesh: DeviceMesh, current: CurrentSlice, parts: Parts
) -> None:
    """Give each process of a tower group one tower: half 0 or half 1 of a layer's kernels, one of its two groups."""
    tower, gathers = mesh["tensor_parallel"], dict[str, nn.Module]()
    for spec in plan:
        layer: Any = net.get_submodule(spec.name)
        if spec.parameters:
            parts.split_rows(layer, tower)
            parts.copy(layer, mesh["data_parallel"])  # over the processes with the same tower
            if spec.crossing:
                gathers[spec.name] = AllGather(tower, 1)
            if spec.kind == "conv":
                layer.groups = max(1, spec.groups // 2)
            elif spec.groups > 1:
                layer.towers = 1
        elif spec.kind == "lrn":
            layer.towers = 1
        elif spec.kind == "dropout":
            setattr(net, spec.name, SharedDropout(layer, current, rows=True, columns=tower))
    _insert(net, gathers)
    net.append(AllGather(tower, 1, same_work_after=True))  # the classes; each process computes the whole loss


def _apply_one_weird_trick(
    net: nn.Sequential, plan: list[LayerSpec], mesh: DeviceMesh, current: CurrentSlice, parts: Parts
) -> None:
    """Copy convolutions to work on own images; split fully connected layers by units to work on all images."""
    gathers = dict[str, nn.Module]()
    for spec in plan:
        layer: Any = net.get_submodule(spec.name)
        if spec.kind == "full":
            gathers[spec.name] = AllGather(mesh, 1) if gathers else AllGatherBatch(mesh, current)
            parts.split_rows(layer, mesh)
        elif spec.parameters:
            parts.copy(layer, mesh)
        elif spec.kind == "dropout":
            part = {"columns": mesh} if gathers else {"rows": True}
            setattr(net, spec.name, SharedDropout(layer, current, **part))
    _insert(net, gathers)
    net.append(AllToAll(mesh, current))


def _insert(net: nn.Sequential, gathers: dict[str, nn.Module]) -> None:
    """Put a layer before each of those that are named."""
    layers = dict(net.named_children())
    for name in layers:
        delattr(net, name)
    for name, layer in layers.items():
        if name in gathers:
            net.add_module(f"{name}_gather", gathers[name])
        net.add_module(name, layer)


# ------------------------------------------------------------------------------------------------ layers


class SharedDropout(nn.Module):
    """Dropout for a process that has a slice of the batch (`rows`), of the units (`columns`), or of both.

    All processes draw the same mask, for all images and all units, and each takes its part. So masks do not depend on
    the layout.
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
    """Concatenate the processes' parts along a dimension.

    Backward: the sum of the gradients; with `same_work_after`, this process's part of its own gradient.
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
        return _Gather.apply(x, self.mesh.get_group(), dim, self.same_work_after)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup, dim: int, same_work_after: bool) -> Tensor:
        ctx.group, ctx.dim, ctx.same_work_after = group, dim, same_work_after
        parts = x.new_empty(group.size() * len(x), *x.shape[1:])
        dist.all_gather_into_tensor(parts, x.contiguous(), group=group)
        return parts.view(group.size(), *x.shape).movedim(0, dim).flatten(dim, dim + 1)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        parts = g.unflatten(ctx.dim, (ctx.group.size(), -1)).movedim(ctx.dim, 0)
        if ctx.same_work_after:
            return parts[ctx.group.rank()], None, None, None
        out = g.new_empty(parts.shape[1:])
        dist.reduce_scatter_tensor(out, parts.flatten(0, 1).contiguous(), group=ctx.group)
        return out, None, None, None


class AllGatherBatch(AllGather):
    """Concatenate the slices of the batch, each padded with zeros to the size of a full one."""

    def __init__(self, mesh: DeviceMesh, current: CurrentSlice) -> None:
        super().__init__(mesh, 0)
        self.current = current

    def forward(self, x: Tensor) -> Tensor:
        """(n, units) -> (full * processes, units); the padding comes last."""
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
    """Send part i of the first dimension to process i, which stores it at this process's number.

    The exchange is its own inverse, and so its own backward.
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
