"""What a GPU would be asked to do, on fake CUDA tensors: they have a device and a type, and no numbers.

A fake tensor refuses to meet one of another device, and to be read by the host. bench/counts.py counts on them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.utils.stateless import _reparametrize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

from alexnet_pl import ROOT
from alexnet_pl.config.choices import OnDevice
from alexnet_pl.config.schema import Config
from alexnet_pl.data import on_device, store
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.data.loader import BatchLoader, InMemoryDataset, PackedDataset, Replica
from alexnet_pl.data.pixel_stats import ColorPCA
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.parallel.layouts import Layout
from alexnet_pl.parallel.shard import parallelize
from alexnet_pl.training.meters import EvaluationCounts
from alexnet_pl.training.module import ImageClassifier
from tests.helpers.runs import run_config

pytestmark = pytest.mark.slow

sys.path.insert(0, str(ROOT / "bench"))
counting = import_module("counts")


@contextmanager
def fake() -> Iterator[FakeTensorMode]:
    """Make fake tensors inside, as if a GPU were here."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, counting.an_h200():
        yield mode


NET = [
    "experiment=released_2012", "model.input_size=67", "data.resize=72", "data.crop_size=67", "data.batch_size=8",
    "model.width=0.25", "logger=none",
]  # fmt: skip


def fake_images(*shape: int) -> Tensor:
    return torch.empty(*shape, 3, dtype=torch.uint8, device=counting.GPU)


def images_of(cfg: Config) -> ImageDataModule:
    """Without a data set: only what a step takes of it."""
    images = ImageDataModule(cfg, counting.GPU)
    images.mean = torch.empty(67, 67, 3, device=counting.GPU)
    images.colors = ColorPCA(torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    return images


def test_a_batch_is_gathered_and_augmented_without_waiting_for_the_gpu():
    """From a set in the GPU's memory: places, mirrors and colours go there, and nothing comes back."""
    cfg = run_config(*NET, "data.color_noise=paper")
    with fake():
        images = images_of(cfg)
        labels = torch.empty(20, dtype=torch.int64, device=counting.GPU)
        dataset = InMemoryDataset(fake_images(20, 72, 72), labels)
        assert dataset.workers == 1
        dataset.workers = 0  # no thread: fake tensors are for this one
        batches = BatchLoader(
            dataset, lambda: torch.arange(20), 20, 8, images.train_input, counting.GPU, draw=images.train_draws
        )
        with counting.Counts() as counts:
            inputs, answers, _ = next(iter(batches))
    assert (inputs.shape, inputs.dtype, inputs.device) == ((8, 3, 67, 67), torch.float32, counting.GPU)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert answers.device == counting.GPU
    assert counts.copies_back == []
    assert 0 < counts.launches < 25


def test_the_step_copies_nothing_to_the_gpu(monkeypatch: pytest.MonkeyPatch):
    """What a reading thread does, and what is left to the one that trains."""
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    cfg = run_config(*NET, "data.color_noise=paper")
    with fake():
        images = images_of(cfg)
        there = InMemoryDataset(fake_images(20, 72, 72), torch.empty(20, dtype=torch.int64, device=counting.GPU))
        batches = BatchLoader(there, list, 20, 8, images.train_input, counting.GPU, draw=images.train_draws)
        rows = torch.empty(8, dtype=torch.int64, device=counting.GPU)
        with counting.Counts() as reading:
            read, draws = batches._read_to_gpu(mock.MagicMock(), rows, 0, Replica().slice_of(8))
        with counting.Counts() as training:
            images.train_input(read, draws)
    assert len(draws.tensors) == 4
    assert {tensor.device for tensor in (read, *draws.tensors)} == {counting.GPU}
    assert (reading.copies_there, training.copies_there) == (4, 0)
    assert reading.copies_back == training.copies_back == []


@pytest.mark.parametrize("views", [1, 10])
def test_an_evaluation_never_waits_within_a_batch(views: int):
    cfg, evaluation = run_config(*NET, f"test_views={views}"), EvaluationCounts()
    with fake():
        images = images_of(cfg)
        with counting.Counts() as counts:
            inputs = images.views_input(fake_images(4, 72, 72))
            logits = inputs.flatten(1)[:, :1000].unflatten(0, (4, views)).mean(1)
            for _ in range(2):
                evaluation.add("test", logits, torch.empty(4, dtype=torch.int64, device=counting.GPU))
    assert counts.copies_back == []
    assert evaluation.counts["test"].device == counting.GPU


def test_a_training_step_never_waits_and_multiplies_in_bf16_but_for_the_logits(monkeypatch: pytest.MonkeyPatch):
    """The module's own step with loss, masks and counting, and its backward."""
    classifier = ImageClassifier(run_config(*NET), 67)
    classifier.layout = Layout("single")
    monkeypatch.setattr(classifier, "_seed_dropout", lambda batch_idx: None)  # torch's generators are not fake
    monkeypatch.setattr(classifier, "_ends_window", lambda batch_idx: False)
    counts = counting.Counts()
    with fake() as mode:
        named = counting.on_gpu(classifier.net, mode)
        images = torch.empty(8, 3, 67, 67, device=counting.GPU).to(memory_format=torch.channels_last)
        labels = torch.empty(8, dtype=torch.int64, device=counting.GPU)
        classifier.running_error.window = torch.empty(3, device=counting.GPU)
        with (
            _reparametrize_module(classifier.net, named),
            counting.compiled_norms(counts, mode),
            counts,
        ):
            with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                loss = classifier.training_step((images, labels, Replica().slice_of(8)), 0)
            gradients = counting.backward(loss, torch.ones_like(loss))
    assert (loss.dtype, loss.device) == (torch.float32, counting.GPU)
    assert {gradients[id(p)].dtype for p in named.values()} == {torch.float32}
    assert counts.copies_back == []
    assert counts.products[torch.float32] == 3, "the last layer: outputs, gradient of its inputs and of its weights"
    assert set(counts.products) == {torch.float32, torch.bfloat16}


Sent = list[tuple[str, torch.dtype, torch.device]]


def noting(sent: Sent, name: str, send: Callable[..., Any]) -> Callable[..., Any]:
    """A function of torch.distributed that also notes its name, and type and device of its first tensor."""

    def noted(*args: Any, **more: Any) -> Any:
        sent.append((name, args[0].dtype, args[0].device))
        return send(*args, **more)

    return noted


@pytest.mark.parametrize(
    "where",
    [Layout("ddp", 2), Layout("towers", 2, towers=2), Layout("towers_ddp", 4, towers=2), Layout("owt", 2)],
    ids=lambda where: where.name,
)
def test_a_step_of_several_gpus_never_waits_and_sends_activations_in_bf16(
    where: Layout, monkeypatch: pytest.MonkeyPatch
):
    """Between processes of which only the first is here: torch's fake group sends nothing.

    DistributedDataParallel itself is left out: it reads its parameters' memory, and fake ones have none.
    """
    cfg = run_config(*NET)
    classifier = ImageClassifier(cfg, 67)
    classifier.layout, classifier.replica = where, Replica(0, where.data)
    monkeypatch.setattr(classifier, "_seed_dropout", lambda batch_idx: None)  # torch's generators are not fake
    monkeypatch.setattr(classifier, "_ends_window", lambda batch_idx: False)
    sent: Sent = []
    for name in ("all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all_single", "all_reduce"):
        monkeypatch.setattr(dist, name, noting(sent, name, getattr(dist, name)))
    dist.init_process_group("fake", rank=0, world_size=where.processes, store=FakeStore())
    try:
        shape, names = (where.data, where.towers), ("data_parallel", "tensor_parallel")
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)  # which decides only who talks to whom
        parts = parallelize(classifier.net, layer_specs(cfg.model, 67), where, mesh, classifier.current)
        counts, part = counting.Counts(), classifier.replica.slice_of(8)
        with fake() as mode:
            names_of = {id(p): name for name, p in classifier.net.named_parameters()}
            named = counting.on_gpu(classifier.net, mode)
            images = fake_images(part.last, 67, 67).permute(0, 3, 1, 2).float()
            labels = torch.empty(part.last, dtype=torch.int64, device=counting.GPU)
            classifier.running_error.window = torch.empty(3, device=counting.GPU)
            with _reparametrize_module(classifier.net, named), counting.compiled_norms(counts, mode), counts:
                with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                    loss = classifier.training_step((images, labels, part), 0)
                gradients = counting.backward(loss, torch.ones_like(loss))
                activations, sent[:] = sent[:], []
                parts.copied = [named[names_of[id(p)]] for p in parts.copied]
                for p in named.values():
                    p.grad = gradients[id(p)].sum_to_size(p.shape)  # as torch's own engine does
                parts.sum_gradients()
    finally:
        dist.destroy_process_group()
    assert counts.copies_back == []
    assert counts.copies_there == 0
    assert (loss.dtype, loss.device) == (torch.float32, counting.GPU)
    assert {(p.grad.dtype, p.grad.device) for p in named.values()} == {(torch.float32, counting.GPU)}
    assert {device for *_, device in [*activations, *sent]} <= {counting.GPU}
    assert len(sent) == (where.data > 1 and where.name != "ddp"), "one sum for all gradients of copies"
    if where.name == "ddp":
        assert activations == []
    else:
        assert {dtype for _, dtype, _ in activations} == {torch.bfloat16, torch.float32}
        logits = [name for name, dtype, _ in activations if dtype is torch.float32]
        assert logits == (["all_to_all_single"] * 2 if where.name == "owt" else ["all_gather_into_tensor"])


def test_a_store_that_fits_lies_in_the_gpus_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import_module("gpu_day").make_store(tmp_path, 64, 72)
    split = PackedDataset(store.require(tmp_path), "train")
    needed = on_device.SHARE * 64 * 72 * 72 * 3
    with fake() as mode:
        split.labels = mode.from_tensor(split.labels)

        def place(choice: OnDevice, free: int) -> InMemoryDataset | PackedDataset:
            monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 140 * 2**30))
            return on_device.place(split, counting.GPU, choice)

        assert isinstance(place(OnDevice.if_it_fits, needed), InMemoryDataset)
        assert place(OnDevice.if_it_fits, needed - 1) is split
        assert place(OnDevice.never, needed) is split
        always = place(OnDevice.always, needed - 1)
        split.store.plan.form = "jpeg"
        assert place(OnDevice.if_it_fits, needed) is split
    assert isinstance(always, InMemoryDataset)
    assert (always.images.dtype, always.images.shape) == (torch.uint8, (64, 72, 72, 3))
    assert always.images.device == always.labels.device == counting.GPU


def test_what_waits_is_found_out():
    """That the tests above can fail."""
    with fake():
        there = torch.empty(3, device=counting.GPU)
        with counting.Counts() as counts:
            there.cpu()
        with pytest.raises(DataDependentOutputException):
            there.sum().item()
        with pytest.raises(RuntimeError, match="to be on the same device"):
            there + torch.empty(3)
    assert counts.copies_back == ["_to_copy"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_our_normalisation_moves_a_fifth_of_the_bytes_of_torchs_at_most(dtype: torch.dtype):
    theirs, ours = counting.lrn_bytes(dtype, (2, 96, 13, 13))
    numbers = 2 * 96 * 13 * 13
    assert 5 * ours <= theirs
    assert ours >= 5 * numbers * dtype.itemsize, "x and y, then x, its gradient and that of y"


def test_the_bench_prints_the_ratios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["counts", "--batch-size", "2", "--json", str(tmp_path / "rows.json")])
    counting.main()
    rows = {row["what"]: row["median"] for row in json.loads((tmp_path / "rows.json").read_text())}
    for what in ("launches", "bytes"):
        assert rows[f"{what} of a step: ours with F.local_response_norm / ours"] > 1
        assert f"{what} of a step: torchvision's AlexNet / ours" in rows
    assert capsys.readouterr().out.count("[bar 5: holds]") == 4
