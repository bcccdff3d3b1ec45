"""Lightning's strategies for several devices, which write one checkpoint for all of them.

jobs/launch.py, torchrun or Slurm starts the processes, never Lightning. gloo connects CPUs, and NCCL connects GPUs.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch.distributed as dist
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins import DoublePrecision
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed import DistError
from torch.optim import Optimizer

from alexnet_pl.config.schema import Trainer
from alexnet_pl.parallel import layouts
from alexnet_pl.parallel.parts import Parts

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Environment variables that name the network interfaces over which processes meet"""


def trainer_options(t: Trainer) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that the group sets, with the strategy of its layout.

    `plugins` is a list that the caller may extend.
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
        by_norm = options.get("gradient_clip_algorithm") != "value"  # which Lightning would take of this process's part
        largest = options.pop("gradient_clip_val", None) if by_norm else None
        options["strategy"] = WholeCheckpointStrategy(where.data, where.towers, largest or 0.0)
        if precision == "64-true":  # which Lightning knows for other strategies only
            del options["precision"]
            options["plugins"].append(DoublePrecision())
    return options


def ddp_factor(layout: layouts.Layout) -> int:
    """Return the factor of the loss: DDP averages gradients over processes, and ours are parts of a sum.

    Each process divides its images' loss by the images of the whole batch, so uneven slices have the right weight.
    """
    return layout.data if layout.name == "ddp" else 1


def lost_connection(error: BaseException) -> str:
    """Return why a process of the run could not be reached, as gloo or NCCL says; empty for other errors."""
    if not isinstance(error, DistError) and not (isinstance(error, RuntimeError) and "gloo" in str(error)):
        return ""
    said = re.sub(r"^\[.*?\] *", "", str(error).rpartition("Last error:")[2].strip()).split("\n")[0]
    chosen = [f"{name}={os.environ[name]}" for name in INTERFACES if name in os.environ]
    return said + (f" ({', '.join(chosen)} in the environment chooses the network)" if chosen else "")


def shutdown_process_group() -> None:
    """Close the connections between the processes of a run; all of them must call this.

    A process that ends with open connections can crash in the threads that serve them (gloo, torch 2.15).
    """
    if dist.is_initialized():
        dist.barrier()  # without it, the first to close would be an error to the others
        dist.destroy_process_group()


def exit_without_farewell(code: int) -> None:
    """Make this process, which failed, exit with its connections open.

    Lightning closes them in an exit function, where NCCL waits for the other processes, and they wait for this one.
    Exit functions run in reverse order, so this one ends the process before that.
    """
    if dist.is_initialized():
        atexit.register(_exit_at_once, code)


def _exit_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class WholeCheckpointStrategy(ModelParallelStrategy):
    """Lightning's strategy for a net over several devices. Its checkpoints are those of a net on one device.

    Lightning's own single files number the optimiser's state in the order of the net's parameters. A plain run numbers
    it in the order of the optimiser's groups, which differs here.

    Args:
        data, towers: number of processes that share the batch, and that share the net.
        largest_norm: gradients are clipped at this norm, as by trainer.gradient_clip_val; 0: no clipping.

    When gathered tensors were freed at once, a process crashed inside gloo, twice in some thousand checkpoints
    (torch 2.15). The cause is unknown, so each tensor of a checkpoint stays in memory until it is written.
    """

    def __init__(self, data: int, towers: int, largest_norm: float) -> None:
        super().__init__(data_parallel_size=data, tensor_parallel_size=towers, save_distributed_checkpoint=False)
        self._largest_norm = largest_norm
        self._kept_alive: list[Any] = []  # tensors of the checkpoint that is being made

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    @property
    def parts(self) -> Parts:
        return self.lightning_module.parts  # type: ignore[union-attr, return-value]

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        """Sum the copies' gradients, clip the norm of all, and update."""

        def closure_and_sum() -> Any:
            result = closure()
            self.parts.sum_gradients()
            if self._largest_norm:
                self.parts.clip_norm(
                    [w for group in optimizer.param_groups for w in group["params"]], self._largest_norm
                )
            return result

        return super().optimizer_step(optimizer, closure_and_sum, *args, **kwargs)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return whole tensors, in the CPU's memory, on the first process; every process must call this."""
        tensors = self._own_tensors()
        return self._whole({name: (value, value) for name, value in tensors.items()})

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state = getattr(optimizer, "optimizer", optimizer).state_dict()
        weights = _weights(optimizer)
        whole = {
            number: self._whole({key: (value, weights[number]) for key, value in values.items()})
            for number, values in state["state"].items()
        }
        return state | {"state": whole}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self._own_tensors()
        here = {name: self._here(whole, own.get(name)) for name, whole in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(here, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = _weights(optimizer)
            state = {
                number: {key: self._here(value, weights[number]) for key, value in values.items()}
                for number, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint, filepath, storage_options)
        self._kept_alive.clear()

    def _own_tensors(self) -> dict[str, Any]:
        """Return this process's parameters by their names in a checkpoint, which may not be those of the net."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict(keep_vars=True)

    def _whole(self, tensors: Mapping[str, tuple[Any, Tensor]]) -> dict[str, Any]:
        """Return whole tensors from values that are each divided as the parameter beside it.

        All processes but the first get nothing.
        """
        out = {}
        for name, (value, parameter) in tensors.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value = self.parts.gather_rows(value.detach(), parameter, self._kept_alive)
            out[name] = value.cpu() if isinstance(value, Tensor) and self.is_global_zero else value
        return out if self.is_global_zero else {}

    def _here(self, whole: Any, parameter: Tensor | None) -> Any:
        """Return this process's part of a whole tensor, divided as the parameter is."""
        if not isinstance(whole, Tensor) or parameter is None or whole.shape[1:] != parameter.shape[1:]:
            return whole
        return self.parts.rows_here(whole, parameter)


def _weights(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return the parameters in the order in which an optimiser numbers them."""
    return [w for group in optimizer.param_groups for w in group["params"]]
