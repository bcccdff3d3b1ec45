"""Normalise by neighbouring activity, fast and exact: across maps (the paper's LRN) and over space.

Both divide a unit by a power of a sum of squares S over a window W of its neighbours:

    S = k + alpha W(x^2)        y = x S^-beta
    dx = g S^-beta - 2 alpha beta x W(g x S^(-beta - 1))

Here g is the gradient of y. The second line holds because windows are symmetric: if u is in the window of v, then v is
in the window of u. Only x is stored for the backward pass; S is cheaper to compute again than to store. The sums are
plain additions, so two runs on one device give the same bits. `bench/lrn.py` compares with `F.local_response_norm`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from alexnet_pl.config.choices import CompileLrn
from alexnet_pl.errors import first_line

log = logging.getLogger(__name__)

CHUNK = 2**21
"""Numbers (8 MB) in a chunk. A CPU's last cache holds several chunks; smaller ones make threads wait more."""


class ResponseNorm(nn.Module):
    """Base of the two normalisations, which differ in `window`.

    Args:
        alpha: factor of each square in the window. The released code divides its `scale` by the window's size first.
        beta: the exponent.
        k: constant that is added to the sum.
        compiled: whether to use torch.compile if there is a compiler. On a GPU that saves most of the memory traffic.
            On a CPU, after `_in_chunks`, AlexNet's step gains next to nothing (`bench/step.py`).
    """

    def __init__(self, alpha: float, beta: float, k: float, compiled: CompileLrn) -> None:
        super().__init__()
        self.alpha, self.beta, self.k = alpha, beta, k
        self.compiled = compiled
        self._bodies: dict[str, Callable[..., Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), any float type and either memory format -> the same. bf16 and fp16 are summed in fp32."""
        return _Apply.apply(x, self)

    def window(self, squares: Tensor) -> Tensor:
        """Return the sum over each unit's window, (N, C, H, W) -> the same shape; a new tensor."""
        raise NotImplementedError

    def normalise(self, x: Tensor) -> Tensor:
        """Return y of the formula above."""
        wide = _widen(x)
        power, _ = self._powers(wide)
        return power.mul_(wide).to(x.dtype)

    def gradient(self, x: Tensor, g: Tensor) -> Tensor:
        """Return dx of the formula above."""
        wide = _widen(x)
        power, inverse = self._powers(wide)
        direct = power.mul_(g)
        through = self.window(inverse.mul_(direct).mul_(wide)).mul_(wide)
        return direct.add_(through, alpha=-2 * self.alpha * self.beta).to(x.dtype)

    def _powers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return S^-beta and S^-1."""
        s = self.window(x * x).mul_(self.alpha).add_(self.k)
        if self.beta != 0.75:
            return s.pow(-self.beta), s.reciprocal_()
        root = s.rsqrt_()  # roots are several times as fast as a power
        return root.sqrt().mul_(root), root.mul_(root)

    def run(self, name: str, *tensors: Tensor) -> Tensor:
        """Call `normalise` or `gradient`, compiled where that works."""
        plain = getattr(self, name)
        if torch.compiler.is_compiling():  # the whole net is being compiled, and this with it
            return plain(*tensors)
        if not compiles(self.compiled, tensors[0].device):
            return _in_chunks(plain, *tensors)
        tensors = tuple(t.detach() for t in tensors)
        for tensor in tensors:
            if len(tensor) > 1:  # one kernel for every batch size
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        try:
            if name not in self._bodies:
                self._bodies[name] = torch.compile(plain, dynamic=False)
            return self._bodies[name](*tensors)
        except (torch._dynamo.exc.TorchDynamoException, OSError) as error:
            log.warning("the normalisation runs uncompiled, as torch.compile failed: %s", first_line(error))
            self.compiled = CompileLrn.never
            return _in_chunks(plain, *tensors)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out compiled code, which cannot be copied or pickled."""
        return self.__dict__ | {"_bodies": {}}


class LocalResponseNorm(ResponseNorm):
    """Normalise across neighbouring maps, within each tower (paper, section 3.3; `cmrnorm` in the released code).

    Args:
        size: maps in the window, odd; at a tower's first and last maps the window is cut.
        towers: number of equal parts of the maps; no window crosses from one to the next.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float, towers: int, compiled: CompileLrn) -> None:
        super().__init__(alpha, beta, k, compiled)
        self.size, self.towers = size, towers

    def window(self, squares: Tensor) -> Tensor:
        # A view of the maps by towers, never a copy, with its numbers in the order they have in memory.
        if _is_channels_last(squares):
            maps = squares.permute(0, 2, 3, 1).unflatten(3, (self.towers, -1))  # (N, H, W, towers, maps)
            return _sums(maps, 4, self.size).flatten(3).permute(0, 3, 1, 2)
        maps = squares.unflatten(1, (self.towers, -1))  # (N, towers, maps, H, W)
        return _sums(maps, 2, self.size).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha:g}, beta={self.beta}, k={self.k}, towers={self.towers}"


class SpatialResponseNorm(ResponseNorm):
    """Normalise over a square of each map: the unpublished third normalisation (`rnorm` in the released code)."""

    def __init__(self, size: int, alpha: float, beta: float, k: float, compiled: CompileLrn) -> None:
        super().__init__(alpha, beta, k, compiled)
        self.size = size

    def window(self, squares: Tensor) -> Tensor:
        return _sums(_sums(squares, 2, self.size), 3, self.size)

    def extra_repr(self) -> str:
        return f"{self.size}x{self.size}, alpha={self.alpha:g}, beta={self.beta}, k={self.k}"


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: ResponseNorm) -> Tensor:
        ctx.save_for_backward(x)
        ctx.norm = norm
        return norm.run("normalise", x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return ctx.norm.run("gradient", x, g), None  # type: ignore[attr-defined]


@cache
def compiles(compiled: CompileLrn, device: torch.device) -> bool:
    """Return whether torch.compile works: on CPUs it needs a C++ compiler, on GPUs Triton and a C compiler.

    Warn on a GPU without them, where the normalisation costs as much as the rest of the step.
    """
    if compiled is CompileLrn.never or (compiled is CompileLrn.on_gpu and device.type == "cpu"):
        return False
    lacking = lacking_to_compile(device.type)
    if lacking and device.type != "cpu":
        log.warning("the normalisation runs uncompiled on this GPU, several times slower: install %s", lacking[0])
    return not lacking


def lacking_to_compile(device: str) -> list[str]:
    """Return what torch.compile needs for a type of device and does not find here."""
    variable, *names = ("CXX", "g++", "clang++") if device == "cpu" else ("CC", "gcc", "clang")
    found = any(shutil.which(name) for name in (os.environ.get(variable, ""), *names) if name)
    lacking = [] if found else [f"a compiler ({' or '.join(names)}, or what {variable} names)"]
    return lacking + (["the package triton"] if device != "cpu" and not find_spec("triton") else [])


def _sums(values: Tensor, dim: int, size: int) -> Tensor:
    """Sum `size` neighbours along one dimension, with the unit itself in the middle, and zeros beyond the ends."""
    count, margin = values.shape[dim], size // 2
    padded = F.pad(values, [0, 0] * (values.ndim - 1 - dim) + [margin, margin])
    total = padded.narrow(dim, 0, count) + padded.narrow(dim, 1, count)
    for offset in range(2, size):
        total += padded.narrow(dim, offset, count)
    return total


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _widen(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _in_chunks(body: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Take few images at a time on a CPU, so that intermediate results stay in its cache.

    It was twice as fast when measured.
    """
    first = tensors[0]
    images = max(1, CHUNK // max(1, first[:1].numel()))
    if first.device.type != "cpu" or images >= len(first):
        return body(*tensors)
    out = torch.empty_like(first)
    for part, *parts in zip(out.split(images), *(t.split(images) for t in tensors), strict=True):
        part.copy_(body(*parts))
    return out
