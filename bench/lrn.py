"""How fast our normalisation across maps is beside torch's `F.local_response_norm`, and what it keeps in memory.

    python bench/lrn.py                                               about a minute on two cores
    python bench/lrn.py --device cuda --dtype bfloat16 --steps 50

Every variant takes the same batch of 32 forward and backward, with the paper's constants, where AlexNet normalises: the
outputs of conv1 (96x55x55) and of conv2 (256x27x27). Rounds are interleaved (each runs every variant once, in turn), so
a drift of the machine meets all alike; printed are the median milliseconds of a call, the bytes kept for the backward
over those of the input, and the median over the rounds of how many times as fast as torch it is, with the range.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as alexnet-train does

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_pl import lrn, provenance
from alexnet_pl.config import Compile

SIZE, ALPHA, BETA, K = 5, 1e-4, 0.75, 2.0
SHAPES = [(32, 96, 55, 55), (32, 256, 27, 27)]
LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
TORCH, EAGER, COMPILED = "F.local_response_norm", "ours, eager", "ours, compiled"

Norm = Callable[[Tensor], Tensor]


def by_torch(x: Tensor) -> Tensor:
    return F.local_response_norm(x, SIZE, ALPHA * SIZE, BETA, K)  # it divides alpha by the size


def by_torch_widened(x: Tensor) -> Tensor:
    """On CPUs torch's own knows no half precision: such inputs go through fp32."""
    return by_torch(x.float()).to(x.dtype)


def ours(compiled: Compile) -> Norm:
    return lrn.LocalResponseNorm(SIZE, ALPHA, BETA, K, towers=1, compiled=compiled)


def variants(device: torch.device, dtype: torch.dtype) -> dict[str, Norm]:
    narrow = device.type == "cpu" and dtype in (torch.bfloat16, torch.float16)
    norms: dict[str, Norm] = {TORCH: by_torch_widened if narrow else by_torch, EAGER: ours(Compile.never)}
    if narrow:
        print(f"{TORCH} has no {dtype} on CPUs: it goes through fp32")
    if lrn.compiles(Compile.always, device):
        norms[COMPILED] = ours(Compile.always)
    else:
        print(f"{COMPILED}: left out, as this machine has no compiler for it")
    return norms


def milliseconds(norm: Norm, x: Tensor, g: Tensor, steps: int) -> float:
    """Of one call, forward and backward."""
    wait(x)
    start = time.perf_counter()
    for _ in range(steps):
        torch.autograd.grad(norm(x), x, g)
    wait(x)
    return 1000 * (time.perf_counter() - start) / steps


def wait(x: Tensor) -> None:
    """Until the device is done with what it was given."""
    if x.is_cuda:
        torch.cuda.synchronize()


def kept(norm: Norm, x: Tensor) -> float:
    """Bytes that the forward keeps for the backward, each tensor once, over those of x."""
    tensors: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        tensors[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        norm(x)
    return sum(tensors.values()) / x.nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds that count, after one to warm up")
    parser.add_argument("--steps", type=int, default=3, help="calls of each variant in a round")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    rounds, steps, name, dtype_name = vars(parser.parse_args()).values()
    device, dtype = torch.device(name), getattr(torch, dtype_name)
    norms = variants(device, dtype)
    cases = {}
    for shape in SHAPES:
        for layout, memory_format in LAYOUTS.items():
            x = 100 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
            x = x.to(device, dtype).contiguous(memory_format=memory_format).requires_grad_()
            cases["x".join(map(str, shape)) + f" {layout}"] = x, torch.randn_like(x)
    times: dict[tuple[str, str], list[float]] = {(case, norm): [] for case in cases for norm in norms}
    for i in range(rounds + 1):
        for (case, norm), values in times.items():
            taken = milliseconds(norms[norm], *cases[case], steps)
            if i:
                values.append(taken)
    where = torch.cuda.get_device_name() if device.type == "cuda" else provenance.processor()
    print(f"\n{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, {dtype_name}, {rounds} rounds")
    for case, (x, _) in cases.items():
        print(case)
        for norm, function in norms.items():
            values = times[case, norm]
            ratios = [a / b for a, b in zip(times[case, TORCH], values, strict=True)]
            against = f"{statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times as fast"
            print(f"{statistics.median(values):8.2f} ms, keeps {kept(function, x):.1f}, {against}  {norm}")


if __name__ == "__main__":
    main()
