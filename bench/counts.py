"""What AlexNet's training step asks of a GPU, counted without one: its launches, its bytes, and those of its LRN.

    python bench/counts.py         a minute, on any machine

Tensors are fake (torch's FakeTensorMode): they have a device, a type and a shape, and no numbers. Each operation on the
GPU counts as one launch that reads its inputs and writes its outputs once; convolutions are two or three launches in
truth, alike for all. Our normalisation is compiled there: its kernels are those that Inductor plans for an H200, with
the buffers that they load and store. Nothing here depends on the machine, so there are no rounds. Printed are launches
and gigabytes of each step and the ratios of the peer's to ours (see ratios.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ratios
import step as bench_step
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch._dynamo.device_interface import CudaInterface
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alexnet_pl.model import lrn
from alexnet_pl.model.build import build_net

GPU = torch.device("cuda", 0)
H200 = SimpleNamespace(
    type="cuda", index=0, name="NVIDIA H200", major=9, minor=0, cc=90, multi_processor_count=132, warp_size=32,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, max_threads_per_block=1024,
    total_memory=140 * 2**30, shared_memory_per_block=49152, shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472, L2_cache_size=50 * 2**20, gcnArchName="",
)  # fmt: skip
"""What Inductor asks about a GPU"""
NO_WORK = ("empty", "new_empty", "detach", "lift_fresh", "set_", "resize_")
OURS, TORCHS, THEIRS = "ours", "ours with F.local_response_norm", "torchvision's AlexNet"


class Counts(TorchDispatchMode):
    """Launches on the GPU inside, the bytes that they read and write, and copies to it and, which wait, from it."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.bytes = 0, 0
        self.copies_back: list[str] = []
        self.copies_there = 0
        self.products: Counter[torch.dtype] = Counter()  # convolutions and matrix products, forward and backward

    def add(self, kernels: list[int]) -> None:
        """Count kernels that do not come through torch, by their bytes."""
        self.launches += len(kernels)
        self.bytes += sum(kernels)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if any(t.is_cuda for t in given) and any(not t.is_cuda for t in made):
            self.copies_back.append(name)
        elif any(t.is_cuda for t in made) and given and not any(t.is_cuda for t in given):
            self.copies_there += 1
        elif any(t.is_cuda for t in made) and not func.is_view and not name.startswith(NO_WORK):
            self.add([sum(t.numel() * t.element_size() for t in [*given, *made])])
            if "convolution" in name or name in ("mm", "addmm", "bmm"):
                self.products[given[0].dtype] += 1
        return out


def backward(output: Tensor, gradient: Tensor) -> dict[int, Tensor]:
    """The gradients of leaves, by the leaves' ids. torch's own engine would ask the GPU, which is not here."""
    waiting: dict[Any, int] = {}  # nodes, and how many gradients they still wait for
    nodes = [output.grad_fn]
    for node in nodes:
        for following, _ in node.next_functions:
            if following is not None:
                nodes += [] if following in waiting else [following]
                waiting[following] = waiting.get(following, 0) + 1
    given: dict[Any, dict[int, Tensor]] = {output.grad_fn: {0: gradient}}
    leaves, ready = dict[int, Tensor](), [output.grad_fn]
    while ready:
        node = ready.pop()
        mine = given.pop(node, {})
        if hasattr(node, "variable"):
            leaves[id(node.variable)] = mine[0]
            continue
        call = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
        made = call(*(mine.get(number) for number in range(max(mine, default=0) + 1)))
        made = made if isinstance(made, tuple) else (made,)
        for (following, number), part in zip(node.next_functions, made, strict=False):
            if following is None:
                continue
            if part is not None:
                place = given.setdefault(following, {})
                place[number] = place[number] + part if number in place else part
            waiting[following] -= 1
            ready += [following] if not waiting[following] else []
    return leaves


@contextmanager
def an_h200() -> Iterator[None]:
    """Have Inductor plan for a GPU that is not here. Fake tensors are to be asked for first: without a GPU, their mode
    has torch make no device the current one.
    """
    with ExitStack() as stack:
        for where in (torch.cuda, CudaInterface, CudaInterface.Worker):
            answer = lambda *args, **kwargs: H200  # noqa: E731
            stack.enter_context(mock.patch.object(where, "get_device_properties", staticmethod(answer)))
        for name, value in {"is_available": True, "device_count": 1, "current_device": 0}.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, return_value=value))
        stack.enter_context(
            mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", return_value=False)
        )
        stack.enter_context(mock.patch("torch._inductor.scheduler.has_triton", return_value=True))
        stack.enter_context(mock.patch.object(torch.cuda, "is_bf16_supported", return_value=True))
        stack.enter_context(mock.patch.object(torch.cuda, "get_device_capability", return_value=(9, 0)))
        yield


def planned_kernels(body: Callable[..., Tensor], *tensors: Tensor) -> list[int]:
    """The bytes that each kernel loads and stores to which Inductor compiles a function of fake tensors on a GPU."""
    from torch._inductor.decomposition import select_decomp_table  # all of Inductor takes seconds to import
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V

    mode = tensors[0].fake_mode  # type: ignore[attr-defined]
    with an_h200(), torch.no_grad():
        graph = make_fx(torch.func.functionalize(lambda *given: body(*given)), select_decomp_table())(*tensors)
        lowered = GraphLowering(graph, example_inputs=list(tensors), shape_env=mode.shape_env)
        with V.set_graph_handler(lowered), V.set_fake_mode(mode), V.set_debug_handler(mock.MagicMock()):
            lowered.run(*tensors)
            lowered._update_scheduler()
            return [node.get_read_write_buffers_sizes() for node in lowered.scheduler.nodes]


@contextmanager
def compiled_norms(counts: Counts, mode: FakeTensorMode) -> Iterator[None]:
    """Have our normalisations count as what they are compiled to."""

    def run(norm: lrn.ResponseNorm, name: str, *tensors: Tensor) -> Tensor:
        with torch.utils._python_dispatch._disable_current_modes(), mode:
            counts.add(planned_kernels(getattr(norm, name), *tensors))
            return torch.empty_like(tensors[0])

    with mock.patch.object(lrn.ResponseNorm, "run", run):
        yield


def counted_step(net: nn.Module, batch: int, side: int = 224, classes: int = 1000) -> Counts:
    """Forward, cross entropy and backward under bf16 autocast, and the update of 2012, of a net on the CPU."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        named = on_gpu(net, mode)
        images = torch.empty(batch, 3, side, side, device=GPU).to(memory_format=torch.channels_last)
        labels = torch.empty(batch, dtype=torch.int64, device=GPU)
    counts = Counts()
    with mode, an_h200(), compiled_norms(counts, mode), counts:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            logits = torch.func.functional_call(net, named, (images,))
            loss = F.cross_entropy(logits, labels)
        gradients = backward(loss, torch.ones_like(loss))
    weights = sum(p.numel() for p in named.values())
    assert {id(p) for p in named.values()} == set(gradients)
    counts.add([5 * 4 * weights])  # one fused kernel: weights and velocities read and written, gradients read
    return counts


def on_gpu(net: nn.Module, mode: FakeTensorMode) -> dict[str, Tensor]:
    """Fake parameters as those of a net, by name."""
    fakes = {name: mode.from_tensor(p.detach()) for name, p in net.named_parameters()}
    return {name: torch.empty_like(fake, device=GPU).requires_grad_() for name, fake in fakes.items()}


def lrn_bytes(dtype: torch.dtype, shape: tuple[int, int, int, int]) -> tuple[int, int]:
    """Bytes of the normalisation of such maps, forward and backward: of `F.local_response_norm`, and of ours."""
    mode, layer = (
        FakeTensorMode(allow_non_fake_inputs=True),
        lrn.LocalResponseNorm(5, 1e-4, 0.75, 2.0, 1, lrn.CompileLrn.always),
    )
    with mode:
        x = torch.empty(shape, dtype=dtype, device=GPU).to(memory_format=torch.channels_last).requires_grad_()
    theirs = Counts()
    with mode, an_h200(), theirs, torch.autocast("cuda", torch.bfloat16, enabled=dtype is torch.bfloat16):
        y = F.local_response_norm(x, 5, 5e-4, 0.75, 2.0)
        backward(y, torch.empty_like(y))
    x = x.detach()
    ours = [*planned_kernels(layer.normalise, x), *planned_kernels(layer.gradient, x, x)]
    return theirs.bytes, sum(ours)


def main() -> None:
    parser = ratios.arguments(__doc__, rounds=1, steps=1)
    parser.add_argument("--batch-size", type=int, default=128)
    given = parser.parse_args()
    ours, torchs = (build_net(bench_step.alexnet(channels_last=True), 224, seed=1) for _ in range(2))
    for name, layer in list(torchs.named_children()):
        if isinstance(layer, lrn.LocalResponseNorm):
            setattr(torchs, name, bench_step.Torchs(layer))
    nets = {OURS: ours, TORCHS: torchs, THEIRS: torchvision.models.alexnet()}
    counts = {name: counted_step(net, given.batch_size) for name, net in nets.items()}
    print(f"batches of {given.batch_size}, bf16-mixed, counted for an H200; torch {torch.__version__}")
    for name, each in counts.items():
        print(f"{each.launches:5} launches, {each.bytes / 1e9:7.2f} GB  {name}")
    rows = []
    for name in (TORCHS, THEIRS):
        for what, of in (("launches", lambda c: c.launches), ("bytes", lambda c: c.bytes)):
            share = of(counts[name]) / of(counts[OURS])
            rows.append(ratios.row(f"{what} of a step: {name} / {OURS}", [share], "times as many"))
    for dtype in (torch.bfloat16, torch.float32):
        for shape in ((given.batch_size, 96, 55, 55), (given.batch_size, 256, 27, 27)):
            theirs, mine = lrn_bytes(dtype, shape)
            what = f"bytes of LRN of {'x'.join(map(str, shape))} {str(dtype)[6:]}: F.local_response_norm / ours"
            rows.append(ratios.row(what, [theirs / mine], "times as many", bar=5))
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
