"""How fast our normalisation across maps is beside torch's `F.local_response_norm`, and what it keeps in memory.

    python bench/lrn.py                                               about a minute on two cores
    python bench/lrn.py --device cuda --dtype bfloat16 --steps 50

Every variant takes the same batch of 32 forward and backward, with the paper's constants, where AlexNet normalises: the
outputs of conv1 (96x55x55) and of conv2 (256x27x27). Printed are the median milliseconds of a call, the bytes kept for
the backward over those of the input, and how many times as fast as torch it is (see ratios.py).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import ratios
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_pl.config.choices import CompileLrn
from alexnet_pl.model import lrn

SIZE, ALPHA, BETA, K = 5, 1e-4, 0.75, 2.0
SHAPES = [(32, 96, 55, 55), (32, 256, 27, 27)]
LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
TORCH, EAGER, COMPILED = "F.local_response_norm", "ours, eager", "ours, compiled"
BARS = {EAGER: 2.0, COMPILED: 4.0}  # the least that the ratios must be, in fp32

Norm = Callable[[Tensor], Tensor]


def by_torch(x: Tensor) -> Tensor:
    return F.local_response_norm(x, SIZE, ALPHA * SIZE, BETA, K)  # it divides alpha by the size


def by_torch_widened(x: Tensor) -> Tensor:
    """On CPUs torch's own knows no half precision: such inputs go through fp32."""
    return by_torch(x.float()).to(x.dtype)


def ours(compiled: CompileLrn) -> Norm:
    return lrn.LocalResponseNorm(SIZE, ALPHA, BETA, K, towers=1, compiled=compiled)


def variants(device: torch.device, dtype: torch.dtype) -> dict[str, Norm]:
    narrow = device.type == "cpu" and dtype in (torch.bfloat16, torch.float16)
    norms: dict[str, Norm] = {TORCH: by_torch_widened if narrow else by_torch, EAGER: ours(CompileLrn.never)}
    if narrow:
        print(f"{TORCH} has no {dtype} on CPUs: it goes through fp32")
    if lrn.compiles(CompileLrn.always, device):
        norms[COMPILED] = ours(CompileLrn.always)
    else:
        print(f"{COMPILED}: left out, as this machine has no compiler for it")
    return norms


def per_second(norm: Norm, x: Tensor, g: Tensor, steps: int) -> float:
    """Calls, forward and backward."""
    wait(x)
    start = time.perf_counter()
    for _ in range(steps):
        torch.autograd.grad(norm(x), x, g)
    wait(x)
    return steps / (time.perf_counter() - start)


def wait(x: Tensor) -> None:
    """Until the device is done with what it was given."""
    if x.is_cuda:
        torch.cuda.synchronize()


def saved_share(norm: Norm, x: Tensor) -> float:
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
    parser = ratios.arguments(__doc__, rounds=9, steps=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    given = parser.parse_args()
    device, dtype = torch.device(given.device), getattr(torch, given.dtype)
    norms = variants(device, dtype)
    cases = {}
    for shape in SHAPES:
        for layout, memory_format in LAYOUTS.items():
            x = 100 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
            x = x.to(device, dtype).contiguous(memory_format=memory_format).requires_grad_()
            cases["x".join(map(str, shape)) + f" {layout}"] = x, torch.randn_like(x)
    speeds = ratios.interleaved(
        {
            (case, name): partial(per_second, norm, *cases[case], given.steps)
            for case in cases
            for name, norm in norms.items()
        },
        given.rounds,
    )
    print(f"\n{ratios.machine(given.device)}, {given.dtype}, {given.rounds} rounds")
    rows = []
    for (case, name), values in speeds.items():
        keeps = saved_share(norms[name], cases[case][0])
        print(f"{1000 / statistics.median(values):8.2f} ms, keeps {keeps:.1f}  {case}, {name}")
        if name != TORCH:
            bar = BARS[name] if given.dtype == "float32" and given.device == "cpu" else None
            rows.append(ratios.ratio(values, speeds[case, TORCH], f"LRN of {case}: {name} / {TORCH}", bar))
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
