"""Batches of images, from memory or from a packed store, which threads read ahead while the net trains.

A dataset is anything with a length, `labels`, and `read(rows)`: uint8 images (n, S, S, 3) of these rows. Threads
suffice: they spend their time in the file system and in the JPEG decoder, where they do not block each other.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alexnet_pl import cpu
from alexnet_pl.data import decode
from alexnet_pl.data.augment import NO_DRAWS, Draws
from alexnet_pl.data.store import Store, read_at
from alexnet_pl.errors import ConfigError, TrainingError

AHEAD = 2
"""Batches that wait, read, beside those that are being read"""


class BatchSlice(NamedTuple):
    """The images of a batch that one process has: `first` up to, not including, `last`."""

    first: int
    last: int
    of: int
    """images of the batch, over all processes"""
    full: int
    """images of a full slice; the last slices may be smaller or empty"""

    def times(self, views: int) -> BatchSlice:
        """Return the slice of a batch in which each image is replaced by so many views."""
        return BatchSlice(self.first * views, self.last * views, self.of * views, self.full * views)


@dataclass(frozen=True)
class Replica:
    """One of the `count` processes that share a batch, by its rank among them; a tower group counts as one."""

    rank: int = 0
    count: int = 1

    def slice_of(self, images: int) -> BatchSlice:
        """Return this process's slice of a batch of so many images.

        Slices are equal but for the last ones, which may be smaller or empty, as torch.chunk makes them.
        """
        full = -(-images // self.count)
        first = min(self.rank * full, images)
        return BatchSlice(first, min(first + full, images), images, full)


class InMemoryDataset:
    """A dataset that fits on the device: uint8 (N, S, S, 3) and int64 (N,)."""

    workers = 0

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        if images.is_cuda:
            self.workers = 1  # which draws and gathers while the net computes; on a CPU it would take the net's time

    def __len__(self) -> int:
        return len(self.images)

    def read(self, rows: Tensor) -> Tensor:
        """Return the images of these rows, uint8 (n, S, S, 3), on the device of the dataset and the rows."""
        return self.images.index_select(0, rows)  # whole images; indexing would copy byte by byte


class PackedDataset:
    """A split of a packed store. Its files stay open; nothing but the index is kept in memory.

    Args:
        pinned: read into page-locked memory, from which a GPU copies by itself.
        workers: threads that read ahead; None: two, or where images are JPEGs one for each CPU, up to 16.
    Raises:
        ConfigError: a file is missing or cut short, or too many are open.
    """

    def __init__(self, store: Store, split: str, pinned: bool = False, workers: int | None = None) -> None:
        self.store, self.pinned = store, pinned
        store.check_files(split)
        try:
            self.files = [(store.root / part.file).open("rb", buffering=0) for part in store.parts[split]]
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            count = len(store.parts[split])
            raise ConfigError(f"a process may not open the {count} files of {store.root}: ulimit -n 4096") from error
        index = store.index(split)
        self.labels = torch.from_numpy(index["label"].to_numpy().copy())
        self.places = np.stack([index[column].to_numpy() for column in ("part", "offset", "bytes")], axis=1)
        cpus = cpu.count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # the run's processes share the machine's
        self.workers = workers or (2 if store.plan.form == "raw" else min(16, max(1, cpus)))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: Tensor) -> Tensor:
        """Return the images of these rows, uint8 (n, S, S, 3), in the CPU's memory; any thread may call it.

        Raises:
            TrainingError: the store's files changed under way.
        """
        size, form = self.store.plan.size, self.store.plan.form
        images = torch.empty(len(rows), size, size, 3, dtype=torch.uint8, pin_memory=self.pinned)
        for image, row in zip(images, rows.tolist(), strict=True):
            number, offset, length = self.places[row].tolist()
            file = self.files[number]
            try:
                if form == "raw":
                    read_at(file.fileno(), offset, memoryview(image.view(-1).numpy()))
                else:
                    cell = bytearray(length)
                    read_at(file.fileno(), offset, memoryview(cell))
                    decode.decode_jpeg_into(cell, image)
            except (OSError, ValueError) as error:
                raise TrainingError(
                    f"{file.name} cannot be read ({error}): compare the store with its checksums, "
                    f"python -m alexnet_pl.prepare --verify {self.store.root}"
                ) from error
        return images


class BatchLoader:
    """Batches of a dataset, in the order given anew for each epoch; of each batch, this process's slice.

    It is stateful in Lightning's sense. A checkpoint in the middle of an epoch records how many batches were handed
    out. The resumed epoch goes on with the next one, on however many processes.

    Args:
        rows: () -> int64 (count,), the rows of an epoch in their order.
        batch_size: images of a batch over all processes.
        transform: (uint8 (n, S, S, 3), what was drawn for them), both on the device -> the net's input.
        replica: which of the processes that share the batch this is.
        draw: (number of the batch, slice of it) -> its images' random choices, made by the thread that reads them.
    """

    def __init__(
        self,
        dataset: InMemoryDataset | PackedDataset,
        rows: Callable[[], Tensor],
        count: int,
        batch_size: int,
        transform: Callable[[Tensor, Draws], Tensor],
        device: torch.device,
        replica: Replica = Replica(),
        draw: Callable[[int, BatchSlice], Draws] = lambda step, part: NO_DRAWS,
    ) -> None:
        self.dataset, self.rows, self.count, self.batch_size = dataset, rows, count, batch_size
        self.transform, self.device, self.replica, self.draw = transform, device, replica, draw
        self.wait_seconds = 0.0  # in this epoch the device had nothing to do because images were not read yet
        self.done = 0  # batches handed out in this epoch
        self._start = 0  # where the next epoch begins: 0, or in the middle after load_state_dict

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, BatchSlice]]:
        """Yield images, float (n, 3, H, W), labels, int64 (n,), and the slice of the batch that these are.

        The last batch of an epoch may be smaller, as in 2012; a process may then have none of it.
        """
        start, self._start = self._start, 0
        self.done, self.wait_seconds = start, 0.0
        order = self.rows().to(self.dataset.labels.device)  # once: a GPU would wait for each batch's
        own = []
        for step, batch in enumerate(order.split(self.batch_size)[start:], start):
            part = self.replica.slice_of(len(batch))
            own.append((batch[part.first : part.last], step, part))
        for (rows, _, part), (images, draws) in zip(own, self._read_ahead(own), strict=True):
            labels = self.dataset.labels[rows].to(self.device, non_blocking=True)
            self.done += 1
            yield self.transform(images.to(self.device), draws.to(self.device)), labels, part

    def _read(self, rows: Tensor, step: int, part: BatchSlice) -> tuple[Tensor, Draws]:
        """Read the images of a slice of a batch, and make their random choices; any thread may call it."""
        return self.dataset.read(rows), self.draw(step, part)

    def _read_to_gpu(
        self, copies: torch.cuda.Stream, rows: Tensor, step: int, part: BatchSlice
    ) -> tuple[Tensor, Draws]:
        """Do the same and copy both to the GPU, which computes meanwhile: on a stream for copies.

        Return once they are there: only this thread waits.
        """
        with torch.cuda.stream(copies):
            images, draws = self._read(rows, step, part)
            images, draws = images.to(self.device, non_blocking=True), draws.to(self.device)
            copies.synchronize()
        return images, draws

    def _read_ahead(self, slices: list[tuple[Tensor, int, BatchSlice]]) -> Iterator[tuple[Tensor, Draws]]:
        """Yield what `_read` returns of each slice, read ahead by the dataset's threads, if it has any."""
        if not self.dataset.workers:
            yield from starmap(self._read, slices)
            return
        read: Callable[..., tuple[Tensor, Draws]] = self._read
        first: tuple[Any, ...] = ()  # what each thread does first
        if self.device.type == "cuda":
            copies = torch.cuda.Stream(self.device)
            read = partial(self._read_to_gpu, copies)
            # A new thread is on GPU 0: going back there from another's stream would open that GPU in this process.
            first = torch.cuda.set_device, (copies.device,)
        with ThreadPoolExecutor(self.dataset.workers, "images", *first) as pool:
            ahead: deque[Future[tuple[Tensor, Draws]]] = deque()
            try:
                for each in slices:
                    ahead.append(pool.submit(read, *each))
                    if len(ahead) >= self.dataset.workers + AHEAD:
                        yield self._wait_for(ahead.popleft())
                while ahead:
                    yield self._wait_for(ahead.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _wait_for(self, batch: Future[tuple[Tensor, Draws]]) -> tuple[Tensor, Draws]:
        """Return a batch once it is read; add to `wait_seconds` only the time in which the device is idle."""
        began = time.perf_counter()
        while not batch.done() and self._is_device_busy():
            wait([batch], timeout=0.001)
            began = time.perf_counter()
        images, draws = batch.result()
        self.wait_seconds += time.perf_counter() - began
        if self.device.type == "cuda":  # their memory must not be used again before the net is through with them
            for tensor in (images, *draws.tensors):
                tensor.record_stream(torch.cuda.current_stream(self.device))
        return images, draws

    def _is_device_busy(self) -> bool:
        """Return whether a GPU still has work queued; a CPU that waits has none."""
        return self.device.type == "cuda" and not torch.cuda.current_stream(self.device).query()

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch were handed out; 0 at its end."""
        return {"done": self.done % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch after the batches that were handed out."""
        self._start = self.done = state["done"]
