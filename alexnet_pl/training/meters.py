"""Measure a net in training: its running error, its speed, and its errors on the evaluation sets.

`Reduce` is the sum of a tensor over the processes that share a batch: every process must call it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]


def ends_window(batch: int, batches: int, windows: int) -> bool:
    """Return whether a window ends with this batch of an epoch. Windows split an epoch evenly.

    Args:
        batch: its number in the epoch, from 0.
        batches, windows: how many there are in an epoch.
    """
    return (batch + 1) * windows // batches > batch * windows // batches


class RunningError:
    """Error and loss on the batches as they are trained, each before its update, over a window and over an epoch.

    Each process counts its images on the device, and reads the counts once per window, as that waits for the device.
    The counts are no buffer of the module, since they would follow the net into low precision.
    """

    def __init__(self) -> None:
        self.window = torch.zeros(3)  # wrong answers, summed loss, images: of this process
        self.window_images = 0  # over all processes
        self.epoch = [0.0, 0.0, 0.0]  # as `window`, over all processes, without the open window

    def to(self, device: torch.device) -> None:
        """Count on this device."""
        self.window = self.window.to(device)

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, summed_loss: Tensor, batch_images: int) -> None:
        """Count a batch: this process's logits (n, classes), labels (n,) and loss, and the images of all processes."""
        wrong = (logits.argmax(1) != labels).sum()
        count = torch.full_like(summed_loss, len(labels), dtype=torch.float32)
        self.window += torch.stack([wrong.float(), summed_loss.float(), count])
        self.window_images += batch_images

    def close_window(self, reduce: Reduce) -> tuple[float, float]:
        """Return error and mean loss of the window over all processes, and begin the next window."""
        wrong, loss, count = window = reduce(self.window).tolist()  # the only wait for the device
        self.epoch = [total + part for total, part in zip(self.epoch, window, strict=True)]
        self.window.zero_()
        self.window_images = 0
        return wrong / count, loss / count

    def epoch_error(self, reduce: Reduce) -> float:
        """Return the error over the epoch so far, with the open window; NaN before the first image."""
        window = reduce(self.window).tolist() if self.window_images else [0.0, 0.0, 0.0]
        wrong, _, count = (total + part for total, part in zip(self.epoch, window, strict=True))
        return wrong / count if count else math.nan

    def start_epoch(self) -> None:
        """Begin the next epoch. All windows are closed by then."""
        self.epoch = [0.0, 0.0, 0.0]

    def state_dict(self, reduce: Reduce) -> dict[str, list[float]]:
        """Return the counts of the open window and of the epoch, over all processes."""
        return {"window": reduce(self.window).tolist(), "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any], first: bool) -> None:
        """Continue from `state_dict`. Only the first of the processes that share a batch takes the open window."""
        self.window = torch.tensor(state["window"])
        self.window_images = round(state["window"][2])
        if not first:
            self.window.zero_()
        self.epoch = state["epoch"]


class Throughput:
    """Images trained per second, without validation, over a window and over the epoch so far."""

    def __init__(self) -> None:
        self.start_epoch()

    def start_epoch(self) -> None:
        """Begin an epoch, and with it a window."""
        self.closed_seconds = 0.0  # of the epoch's windows that are closed
        self.epoch_images = 0
        self._start_window()

    def _start_window(self) -> None:
        self.window_start = time.perf_counter()
        self.window_images = 0

    def add(self, images: int) -> None:
        """Count the images of a batch over all processes."""
        self.epoch_images += images
        self.window_images += images

    def close_window(self) -> float:
        """Return images per second of the window, and begin the next window."""
        seconds = time.perf_counter() - self.window_start
        rate = self.window_images / seconds
        self.closed_seconds += seconds
        self._start_window()
        return rate

    def pause(self) -> None:
        """Stop the clock until `resume`."""
        self.pause_start = time.perf_counter()

    def resume(self) -> None:
        """Start the clock again."""
        self.window_start += time.perf_counter() - self.pause_start

    @property
    def epoch_seconds(self) -> float:
        """Seconds of training in the epoch so far."""
        return self.closed_seconds + time.perf_counter() - self.window_start


class EvaluationCounts:
    """Errors and losses of the evaluation sets. Each image counts once, so a small last batch weighs less.

    The counts are on the device. Except for the loss they are whole numbers, exact in fp32 up to 16 million.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Tensor] = {}  # by set: wrong, not among five, summed loss, images; of this process

    def add(self, name: str, scores: Tensor, labels: Tensor) -> None:
        """Count a batch of a set.

        Args:
            scores: (n, classes), logits or log probabilities.
            labels: (n,).
        """
        five = scores.topk(min(5, scores.shape[1])).indices
        counts = [
            (scores.argmax(1) != labels).sum(),
            (five != labels[:, None]).all(1).sum(),
            F.cross_entropy(scores.float(), labels, reduction="sum"),
            torch.ones_like(labels).sum(),
        ]
        self.counts[name] = self.counts.get(name, 0) + torch.stack([count.float() for count in counts])

    def close(self, reduce: Reduce, with_top5: bool) -> dict[str, float]:
        """Return errors and losses of the counted sets, over all processes, and reset the counts."""
        results: dict[str, float] = {}
        for name, counts in self.counts.items():
            wrong, not_five, loss, count = reduce(counts).tolist()
            results |= {f"{name}/error": wrong / count, f"{name}/loss": loss / count}
            if with_top5:
                results[f"{name}/top5_error"] = not_five / count
        self.counts = {}
        return results
