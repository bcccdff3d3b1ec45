"""The two normalisations against torch's own formulas and the NumPy reference, in every layout, type and way to run."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_pl.config.choices import CompileLrn
from alexnet_pl.model import lrn
from alexnet_pl.model.lrn import LocalResponseNorm, ResponseNorm, SpatialResponseNorm
from tests.helpers import reference

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
layouts = pytest.mark.parametrize("layout", LAYOUTS)

Both = tuple[Tensor, Tensor]


def local(
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    towers: int = 2,
    compiled: CompileLrn = CompileLrn.never,
) -> LocalResponseNorm:
    """The paper's constants, unless told."""
    return LocalResponseNorm(size, alpha, beta, k, towers, compiled)


def spatial(
    size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, compiled: CompileLrn = CompileLrn.never
) -> SpatialResponseNorm:
    return SpatialResponseNorm(size, alpha, beta, k, compiled)


NORMS: dict[str, Callable[..., ResponseNorm]] = {"local": local, "spatial": spatial}
norms = pytest.mark.parametrize("norm", NORMS)


def signals(*shape: int, layout: str = "NCHW", dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Signed numbers as conv1 makes them of pixels of 0..255."""
    x = 100 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype).contiguous(memory_format=LAYOUTS[layout])


def both_ways(function: Callable[[Tensor], Tensor], x: Tensor) -> Both:
    """Output and gradient, for a gradient of the output that is the same in each call."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = function(x)
    g = signals(*x.shape, seed=1).div(100).to(y).contiguous(memory_format=LAYOUTS[layout_of(x)])
    return y.detach(), torch.autograd.grad(y, x, g)[0]


def layout_of(x: Tensor) -> str:
    return "NCHW" if x.is_contiguous() else "channels_last"


def by_numpy(function: Callable[[np.ndarray], reference.Out], x: Tensor) -> Both:
    """The same of a layer of the reference."""
    y, backward = function(x.double().numpy())
    g = signals(*x.shape, seed=1) / 100
    return torch.from_numpy(y), torch.from_numpy(backward(g.numpy()))


def local_by_torch(x: Tensor, size: int, alpha: float, beta: float, k: float, towers: int) -> Tensor:
    """torch's own, once per tower; it divides alpha by the size of the window."""
    return torch.cat([F.local_response_norm(t, size, alpha * size, beta, k) for t in x.chunk(towers, 1)], 1)


def assert_same(ours: Both, theirs: Both, tolerance: float) -> None:
    """Outputs to `tolerance` each, gradients to that part of the largest: their two terms may cancel."""
    (y, dx), (y_ref, dx_ref) = ours, theirs
    torch.testing.assert_close(y.double(), y_ref.double(), rtol=tolerance, atol=0)
    torch.testing.assert_close(dx.double(), dx_ref.double(), rtol=0, atol=tolerance * dx_ref.abs().max().item())


# ------------------------------------------------------------------------------------------------ the formulas


constants = pytest.mark.parametrize(
    ("size", "towers", "beta", "k"),
    [(size, towers, beta, k) for size in (3, 5, 9) for towers in (1, 2) for beta in (0.75, 0.6) for k in (1.0, 2.0)],
)


@constants
def test_local_equals_torch(size: int, towers: int, beta: float, k: float):
    """A window of nine is wider than a tower of six maps."""
    x, alpha = signals(2, 12, 5, 7), 1e-4
    ours = both_ways(local(size, alpha, beta, k, towers), x)
    assert_same(ours, both_ways(lambda x: local_by_torch(x, size, alpha, beta, k, towers), x), 1e-12)


@constants
@layouts
def test_local_equals_the_reference(size: int, towers: int, beta: float, k: float, layout: str):
    x, alpha = signals(2, 12, 5, 7, layout=layout), 1e-4
    ours = both_ways(local(size, alpha, beta, k, towers), x)
    assert_same(ours, by_numpy(lambda x: reference.lrn(x, size, k, alpha, beta, towers), x), 1e-12)


@norms
def test_these_signals_are_normalised(norm: str):
    """With smaller ones every unit would be divided by the same number, and no window seen."""
    x = signals(2, 12, 5, 7)
    factor = NORMS[norm]()(x) / x
    assert factor.max() > 2 * factor.min()


@layouts
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(2, 3, 13, 13), (1, 2, 4, 7), (2, 3, 1, 2)])
def test_spatial_equals_the_reference(size: int, shape: tuple[int, ...], layout: str):
    """Also where the window is wider than the map."""
    x = signals(*shape, layout=layout)
    ours = both_ways(spatial(size, 1e-3 / size**2), x)
    assert_same(ours, by_numpy(lambda x: reference.spatial_norm(x, size, 1e-3 / size**2), x), 1e-12)


def test_spatial_equals_the_released_constants():
    """Facts file, section 2: x (1 + 1e-3 mean(x^2))^-0.75 over 5x5 places, those beyond the edge counted as zeros."""
    x = signals(2, 4, 13, 13)

    def released(x: Tensor) -> Tensor:
        return x * (1 + 1e-3 * F.avg_pool2d(x**2, 5, stride=1, padding=2, count_include_pad=True)) ** -0.75

    assert_same(both_ways(spatial(alpha=1e-3 / 25), x), both_ways(released, x), 1e-12)


@norms
@layouts
@pytest.mark.parametrize(("size", "beta"), [(3, 0.75), (5, 0.6)])
def test_the_backward_is_the_derivative_of_the_forward(norm: str, layout: str, size: int, beta: float):
    x = signals(2, 6, 3, 5, layout=layout).div(100).requires_grad_()
    assert torch.autograd.gradcheck(NORMS[norm](size=size, alpha=0.3, beta=beta), x)


def test_no_window_crosses_from_tower_to_tower():
    x, norm = signals(2, 12, 4, 4), local(towers=2)
    other = x.clone()
    other[:, 6:] = signals(2, 6, 4, 4, seed=2)
    (y, dx), (y_other, dx_other) = both_ways(norm, x), both_ways(norm, other)
    assert torch.equal(y[:, :6], y_other[:, :6])
    assert torch.equal(dx[:, :6], dx_other[:, :6])
    assert not torch.equal(y[:, 6], y_other[:, 6])


def test_one_tower_has_no_border():
    """The two maps below the middle see those above it, and no others do."""
    x = signals(2, 12, 4, 4)
    other = x.clone()
    other[:, 6:] = signals(2, 6, 4, 4, seed=2)
    changed = (local(towers=1)(x) != local(towers=1)(other)).any(3).any(2)
    assert changed.tolist() == [[False] * 4 + [True] * 8] * 2


# ------------------------------------------------------------------------------------------------ types and layouts


@norms
@layouts
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_fp32_is_exact_to_a_few_roundings(norm: str, layout: str, beta: float):
    x, layer = signals(3, 96, 13, 13, layout=layout, dtype=torch.float32), NORMS[norm](beta=beta)
    assert_same(both_ways(layer, x), both_ways(layer, x.double()), 5e-7)


@norms
@layouts
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_once(norm: str, layout: str, dtype: torch.dtype):
    """The type stays, and only the result is rounded to it: half of its spacing."""
    x, layer = signals(3, 32, 7, 7, layout=layout, dtype=dtype), NORMS[norm]()
    y, dx = both_ways(layer, x)
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    x64 = x.double().requires_grad_()
    y64 = layer(x64)
    g = signals(*x.shape, seed=1).div(100).to(dtype).double()  # as rounded as the one that `both_ways` gave
    (dx64,) = torch.autograd.grad(y64, x64, g)
    half = 0.51 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), y64.detach(), rtol=half, atol=1e-7)
    torch.testing.assert_close(dx.double(), dx64, rtol=half, atol=1e-6)


@norms
@pytest.mark.parametrize("shape", [(3, 8, 5, 7), (1, 8, 5, 7), (3, 8, 1, 1), (1, 8, 1, 1)])
def test_the_layout_stays(norm: str, shape: tuple[int, ...]):
    """A net without copies between its layers; the numbers do not depend on it."""
    layer = NORMS[norm]()
    x = signals(*shape, layout="channels_last")
    ours, plain = both_ways(layer, x), both_ways(layer, signals(*shape))
    for tensor, expected in zip(ours, plain, strict=True):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert expected.is_contiguous()
        torch.testing.assert_close(tensor, expected, rtol=1e-13, atol=1e-13)
    if shape[2:] != (1, 1):
        assert [tensor.stride() for tensor in ours] == [x.stride()] * 2


@norms
def test_any_view_will_do(norm: str):
    """Every other map of a larger tensor, a transposed one, and one number for all."""
    layer = NORMS[norm]()
    views = [signals(2, 16, 5, 6)[:, ::2], signals(2, 8, 6, 5).mT, signals(1, 8, 1, 1).expand(2, 8, 5, 6)]
    for x in views:
        assert_same(both_ways(layer, x), both_ways(layer, x.contiguous()), 1e-13)


def test_a_gradient_may_come_in_another_layout():
    x, g = signals(2, 8, 5, 6).requires_grad_(), signals(2, 8, 5, 6, seed=1)
    y = local()(x)
    (plain,) = torch.autograd.grad(y, x, g, retain_graph=True)
    (mixed,) = torch.autograd.grad(y, x, g.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(mixed, plain, rtol=1e-13, atol=1e-13)


# ------------------------------------------------------------------------------------------------ memory, repetition


@norms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_backward_keeps_little(norm: str, dtype: torch.dtype):
    """The input, which the layer below keeps anyway; torch's own keeps four times as much."""
    x = signals(2, 8, 6, 6, dtype=dtype).requires_grad_()
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        NORMS[norm]()(x)
    assert 0 < sum(kept) <= 2.1 * x.nbytes


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@norms
@layouts
def test_two_runs_are_equal_to_the_bit(norm: str, layout: str, deterministic: None):
    x, layer = signals(4, 16, 9, 9, layout=layout, dtype=torch.float32), NORMS[norm]()
    first, second = both_ways(layer, x), both_ways(layer, x)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@norms
@layouts
def test_a_image_does_not_depend_on_its_batch(norm: str, layout: str):
    """Five images that a CPU takes two at a time."""
    x, layer = signals(5, 32, 64, 64, layout=layout, dtype=torch.float32), NORMS[norm]()
    g = signals(*x.shape, layout=layout, dtype=torch.float32, seed=1)

    def run(x: Tensor, g: Tensor) -> Both:
        x = x.detach().requires_grad_()
        y = layer(x)
        return y.detach(), torch.autograd.grad(y, x, g)[0]

    together = run(x, g)
    alone = [run(x[i : i + 1], g[i : i + 1]) for i in range(5)]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))
        assert whole.stride() == x.stride()


@norms
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_the_same_layer(norm: str, clone: Callable[[ResponseNorm], ResponseNorm]):
    layer = NORMS[norm]()
    assert_same(both_ways(clone(layer), signals(2, 8, 5, 5)), both_ways(layer, signals(2, 8, 5, 5)), 0)


# ------------------------------------------------------------------------------------------------ torch.compile


needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name),
    reason="torch.compile needs a C++ compiler, and this machine has none",
)


@pytest.fixture
def forget() -> Iterator[None]:
    """torch.compile without what earlier tests left in it."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@needs_compiler
def test_compiled_is_the_same(forget: None):
    """For two sizes of a batch; and it did not fall back."""
    fast, plain = local(compiled=CompileLrn.always), local()
    for batch in (3, 5):
        x = signals(batch, 12, 5, 7, dtype=torch.float32)
        assert_same(both_ways(fast, x), both_ways(plain, x), 5e-7)
    assert fast.compiled is CompileLrn.always


@needs_compiler
def test_one_kernel_serves_every_batch(forget: None, monkeypatch: pytest.MonkeyPatch):
    """Else the last batch of an epoch would wait for the compiler."""
    kernels: list[Any] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        kernels.append(graph)
        return graph.forward

    true = torch.compile
    monkeypatch.setattr(torch, "compile", lambda body, **options: true(body, backend=count, **options))
    layer = local(compiled=CompileLrn.always)
    for batch in (4, 2, 7):
        both_ways(layer, signals(batch, 8, 5, 5, dtype=torch.float32))
    assert len(kernels) == 2  # forward and backward


@pytest.mark.parametrize("compiled", [CompileLrn.never, CompileLrn.on_gpu])
def test_a_cpu_does_not_wait_for_a_compiler(compiled: CompileLrn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda *args, **options: pytest.fail("compiled"))
    both_ways(local(compiled=compiled), signals(2, 8, 5, 5))


def test_without_a_compiler_it_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch, "compile", lambda *args, **options: pytest.fail("compiled"))
    lrn.compiles.cache_clear()  # it looked for a compiler before
    try:
        x = signals(2, 8, 5, 5)
        assert_same(both_ways(local(compiled=CompileLrn.always), x), both_ways(local(), x), 0)
    finally:
        lrn.compiles.cache_clear()


@pytest.mark.parametrize(
    ("there", "said"),
    [(["gcc", "triton"], ""), (["clang", "triton"], ""), (["triton"], "install a compiler (gcc or clang, or what CC"),
     (["g++", "triton"], "install a compiler"), (["gcc"], "install the package triton")],
)  # fmt: skip
def test_a_gpu_without_a_compiler_is_warned_of_once(
    there: list[str], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(lrn.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setattr(lrn, "find_spec", lambda name: name if name in there else None)
    lrn.compiles.cache_clear()
    try:
        for _ in range(2):
            assert lrn.compiles(CompileLrn.on_gpu, torch.device("cuda", 0)) is (not said)
            assert not lrn.compiles(CompileLrn.never, torch.device("cuda", 0))
            assert not lrn.compiles(CompileLrn.on_gpu, torch.device("cpu"))
    finally:
        lrn.compiles.cache_clear()
    assert [said in record.getMessage() for record in caplog.records] == [True] * bool(said)


@needs_compiler
@pytest.mark.parametrize("fails", ["normalise", "gradient"])
def test_where_compiling_fails_it_says_so_once_and_runs(
    fails: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*tensors: Tensor) -> Tensor:
        raise torch._dynamo.exc.TorchDynamoException("no kernels today\nand a long trace")

    monkeypatch.setattr(torch, "compile", lambda body, **options: broken if body.__name__ == fails else body)
    x, layer = signals(2, 8, 5, 5), local(compiled=CompileLrn.always)
    for _ in range(2):
        assert_same(both_ways(layer, x), both_ways(local(), x), 0)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("alexnet_pl.model.lrn", logging.WARNING)
    assert record.getMessage() == "the normalisation runs uncompiled, as torch.compile failed: no kernels today"


@pytest.mark.slow
@needs_compiler
def test_a_compiler_that_does_not_work_is_such_a_failure(
    forget: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """What torch itself raises then."""
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing is there that was compiled before
    caplog.set_level(logging.WARNING)  # torch's own debug messages fill pages
    x, layer = signals(2, 8, 5, 5), local(compiled=CompileLrn.always)
    with inductor.patch({"cpp.cxx": (None, "false")}):
        assert_same(both_ways(layer, x), both_ways(local(), x), 0)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "alexnet_pl.model.lrn"]
    assert said.startswith("the normalisation runs uncompiled, as torch.compile failed: InvalidCxxCompiler")


# ------------------------------------------------------------------------------------------------ GPU


on_both_ways = pytest.mark.parametrize("compiled", [CompileLrn.never, CompileLrn.always])


@pytest.mark.gpu
@norms
@layouts
@on_both_ways
def test_a_gpu_computes_the_same(norm: str, layout: str, compiled: CompileLrn, deterministic: None, forget: None):
    """To the approximate roots of its compiled kernels; in two runs to the bit."""
    x = signals(3, 96, 13, 13, layout=layout, dtype=torch.float32)
    layer = NORMS[norm](compiled=compiled)
    first, second = both_ways(layer, x.cuda()), both_ways(layer, x.cuda())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].stride() == x.stride()
    expected = both_ways(NORMS[norm](), x.double())
    assert_same((first[0].cpu(), first[1].cpu()), expected, 1e-6)
    assert layer.compiled is compiled  # it did not fall back


@pytest.mark.gpu
@norms
@layouts
@on_both_ways
def test_a_gpu_keeps_bf16_under_autocast(norm: str, layout: str, compiled: CompileLrn, forget: None):
    x = signals(3, 96, 13, 13, layout=layout, dtype=torch.bfloat16)
    layer = NORMS[norm](compiled=compiled)
    with torch.autocast("cuda", torch.bfloat16):
        y, dx = both_ways(layer, x.cuda())
    assert (y.dtype, dx.dtype) == (torch.bfloat16, torch.bfloat16)
    y_cpu, dx_cpu = both_ways(NORMS[norm](), x.double())
    eps = torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(y.cpu().double(), y_cpu, rtol=0.51 * eps, atol=1e-7)
    largest = dx_cpu.abs().max().item()
    torch.testing.assert_close(dx.cpu().double(), dx_cpu, rtol=0, atol=eps * largest)  # the gradient it got is rounded
