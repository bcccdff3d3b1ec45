"""How Lightning trains on several devices: which strategy, and checkpoints that are one whole file for all of them.

Processes are started by jobs/launch.py, torchrun or Slurm, never by Lightning; gloo connects CPUs, NCCL GPUs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins import DoublePrecision
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.distributed import DistError
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Optimizer

from alexnet_pl.config.schema import Trainer
from alexnet_pl.parallel import layouts

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Environment variables with the network interfaces over which processes meet"""


def trainer_options(t: Trainer) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that the group sets, with the strategy of its layout.

    `plugins` is a list, to which the caller may add.
    """
    where, precision = layouts.layout(t), layouts.resolve_precision(t)
    options: dict[str, Any] = {key: value for key, value in vars(t).items() if value is not None}
    options |= options.pop("more")
    options["accelerator"], options["precision"] = layouts.resolve_accelerator(t), precision
    options["plugins"] = [LightningEnvironment()]  # also inside a Slurm job, where Lightning would take over signals
    if where.name == "ddp":
        options["strategy"] = DDPStrategy(gradient_as_bucket_view=True)
    elif where.name == "single":
        options["strategy"] = "auto"
    else:
        options["strategy"] = WholeCheckpointStrategy(where.data, where.towers)
        if precision == "64-true":  # which Lightning knows for other strategies only
            del options["precision"]
            options["plugins"].append(DoublePrecision())
    return options


def ddp_factor(layout: layouts.Layout) -> int:
    """Return what a loss is multiplied with: DDP averages the processes' gradients, and ours are parts of a sum.

    Each process divides its images' loss by the images of the whole batch, so uneven parts weigh what they should.
    """
    return layout.data if layout.name == "ddp" else 1


def lost_connection(error: BaseException) -> str:
    """Return why a process of the run could not be reached, in the words of gloo or NCCL; empty for other errors."""
    if not isinstance(error, DistError) and not (isinstance(error, RuntimeError) and "gloo" in str(error)):
        return ""
    said = re.sub(r"^\[.*?\] *", "", str(error).rpartition("Last error:")[2].strip()).split("\n")[0]
    chosen = [f"{name}={os.environ[name]}" for name in INTERFACES if name in os.environ]
    return said + (f" ({', '.join(chosen)} in the environment chooses the network)" if chosen else "")


def shutdown_process_group() -> None:
    """Close the connections between the processes of a run; all of them must call this.

    A process that ends with open ones can crash on its way out, in the threads that serve them (gloo, torch 2.15).
    """
    if dist.is_initialized():
        dist.barrier()  # without it, the first to close would be an error to the others
        dist.destroy_process_group()


class WholeCheckpointStrategy(ModelParallelStrategy):
    """Lightning's strategy for nets over several devices, with checkpoints as those of a net on one.

    Lightning's own single files number the optimiser's state in the order of the net's parameters. A plain run numbers
    it in the order of the optimiser's groups, which is another one here.

    Seen: where tensors gathered by `full_tensor` were freed at once, a process crashed inside gloo, twice in some
    thousand checkpoints (torch 2.15). The cause is unknown, so each tensor of a checkpoint is kept until it is written.
    """

    def __init__(self, data: int, towers: int) -> None:
        super().__init__(data_parallel_size=data, tensor_parallel_size=towers, save_distributed_checkpoint=False)
        self._kept_alive: list[Any] = []  # tensors of the checkpoint that is being made

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return whole tensors, in the CPU's memory, on the first process; every process must call this."""
        assert self.lightning_module is not None
        return self._whole_tensors(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state = getattr(optimizer, "optimizer", optimizer).state_dict()
        return state | {"state": {number: self._whole_tensors(values) for number, values in state["state"].items()}}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        parts = {name: _local_part(whole, own.get(name)) for name, whole in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(parts, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [w for group in optimizer.param_groups for w in group["params"]]
            state = {
                number: {key: _local_part(value, weights[number]) for key, value in values.items()}
                for number, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint, filepath, storage_options)
        self._kept_alive.clear()

    def _whole_tensors(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values as a net on one device has them; nothing on all processes but the first."""
        self._kept_alive.append(tensors)
        out = {}
        for name, value in tensors.items():
            if isinstance(value, DTensor):
                value = self._gather(value)
            out[name] = value.cpu() if isinstance(value, Tensor) and self.is_global_zero else value
        return out if self.is_global_zero else {}

    @torch.no_grad()
    def _gather(self, value: DTensor) -> Tensor:
        """Return the whole tensor on the first process, and the local part on the others.

        DTensor's `full_tensor` would make the whole tensor on every process.
        """
        local, mesh = value.to_local(), value.device_mesh
        coordinate = mesh.get_coordinate()
        assert coordinate is not None
        for dim, placement in enumerate(value.placements):
            others = coordinate[:dim] + coordinate[dim + 1 :]
            if isinstance(placement, Shard) and not any(others):  # only the first of several equal copies
                whole = local.new_empty(value.shape) if coordinate[dim] == 0 else None
                parts = list(whole.chunk(mesh.size(dim), placement.dim)) if whole is not None else None
                dist.gather(local, parts, group=mesh.get_group(dim), group_dst=0)
                self._kept_alive += [local, parts]
                local = local if whole is None else whole
        return local


def _local_part(whole: Any, like: Tensor | None) -> Any:
    """Return this process's part of a whole tensor, laid over the processes as `like` is."""
    if not isinstance(like, DTensor) or not isinstance(whole, Tensor) or whole.shape != like.shape:
        return whole
    whole = whole.to(like.device).contiguous()
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
