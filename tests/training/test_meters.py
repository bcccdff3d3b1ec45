"""The meters of the LightningModule: windows of an epoch, the running error and its state, the clock, the counts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_pl.model.layers import Logits
from alexnet_pl.training import meters
from alexnet_pl.training.meters import EvaluationCounts, RunningError, Throughput, ends_window


def alone(numbers: Tensor) -> Tensor:
    """The sum over one process."""
    return numbers


@pytest.mark.parametrize(("batches", "windows"), [(10, 3), (7, 7), (100, 1), (13, 5)])
def test_windows_split_an_epoch_evenly_and_end_with_it(batches: int, windows: int):
    ends = [batch + 1 for batch in range(batches) if ends_window(batch, batches, windows)]
    assert len(ends) == windows
    assert ends[-1] == batches
    lengths = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert max(lengths) - min(lengths) <= 1


def batch(labels: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that answer 0 to each image, the labels, and the summed loss."""
    logits = torch.tensor([[2.0, 0.0, 0.0]]).repeat(len(labels), 1)
    return logits, torch.tensor(labels), F.cross_entropy(logits, torch.tensor(labels), reduction="sum")


def test_the_running_error_is_counted_by_window_and_by_epoch():
    meter = RunningError()
    assert math.isnan(meter.epoch_error(alone))
    meter.add(*batch([0, 1, 2, 0]), 4)
    meter.add(*batch([0, 0]), 2)
    right, wrong = (batch([label])[2].item() for label in (0, 1))
    assert meter.close_window(alone) == pytest.approx((2 / 6, (4 * right + 2 * wrong) / 6))
    assert meter.window_images == 0
    meter.add(*batch([1, 1]), 2)
    assert meter.epoch_error(alone) == pytest.approx(4 / 8), "the open window counts"
    meter.close_window(alone)
    meter.start_epoch()
    assert math.isnan(meter.epoch_error(alone))


def test_errors_are_counted_on_fp32_logits():
    """In bf16 both are 8, and the first class would win."""
    layer = Logits(1, 2, bias=False)
    layer.weight.data = torch.tensor([[8.0], [8.01]])
    images, labels = torch.ones(3, 1, dtype=torch.bfloat16), torch.ones(3, dtype=torch.int64)
    running, evaluation = RunningError(), EvaluationCounts()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = F.linear(images, layer.weight)
        logits = layer(images)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        running.add(logits, labels, loss, 3)
        evaluation.add("val", logits, labels)
    assert narrow[0, 0] == narrow[0, 1]
    assert (logits.dtype, narrow.dtype) == (torch.float32, torch.bfloat16)
    assert running.close_window(alone)[0] == 0
    assert evaluation.close(alone, with_top5=False)["val/error"] == 0


def test_of_the_processes_that_share_a_batch_one_goes_on_with_the_window():
    meter = RunningError()
    meter.add(*batch([0, 1]), 2)
    meter.close_window(alone)
    meter.add(*batch([0, 1, 1]), 6)
    state = meter.state_dict(lambda numbers: 2 * numbers)  # another process counted the same
    first, second = RunningError(), RunningError()
    first.load_state_dict(state, first=True)
    second.load_state_dict(state, first=False)
    assert first.window_images == second.window_images == 6
    assert first.window.tolist() == state["window"]
    assert second.window.tolist() == [0, 0, 0]
    assert first.epoch_error(lambda numbers: numbers + second.window) == pytest.approx((1 + 4) / (2 + 6))


def test_the_clock_leaves_a_pause_out(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(meters.time, "perf_counter", lambda: now)
    clock = Throughput()
    clock.add(30)
    now += 3
    assert clock.close_window() == pytest.approx(10)
    clock.add(8)
    now += 1
    clock.pause()
    now += 50
    clock.resume()
    now += 1
    assert clock.epoch_seconds == pytest.approx(5)
    assert clock.epoch_images == 38
    assert clock.close_window() == pytest.approx(4)
    clock.start_epoch()
    now += 2
    assert (clock.epoch_images, clock.epoch_seconds) == (0, pytest.approx(2))


def test_each_image_of_an_evaluation_weighs_the_same():
    counts = EvaluationCounts()
    scores = torch.eye(8)
    counts.add("val", scores, torch.arange(8))
    counts.add("val", scores[:2], torch.tensor([1, 7]))
    counts.add("test", scores[:1], torch.tensor([0]))
    results = counts.close(alone, with_top5=True)
    assert results["val/error"] == pytest.approx(2 / 10)
    assert results["val/top5_error"] <= results["val/error"]
    labels = torch.tensor([*range(8), 1, 7])
    assert results["val/loss"] == pytest.approx(F.cross_entropy(torch.cat([scores, scores[:2]]), labels).item())
    assert results["test/error"] == results["test/top5_error"] == 0
    assert counts.close(alone, with_top5=True) == {}, "it begins anew"
