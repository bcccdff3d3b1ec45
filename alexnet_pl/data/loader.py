"""Batches of images, from memory or from a packed store, which threads read ahead while the net trains.

A set is anything with a length, `labels`, and `read(rows)`: uint8 images (n, S, S, 3) of these rows. Threads suffice:
they spend their time in the file system and in the JPEG decoder, where they do not hold each other up.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from alexnet_pl import cpu
from alexnet_pl.data.store import Store, read_at
from alexnet_pl.errors import ConfigError, TrainingError

AHEAD = 2
"""Batches that wait, read, beside those that are being read"""


class BatchSlice(NamedTuple):
    """The images of a batch that one process has: `first` up to, not including, `last`, `of` over all processes."""

    first: int
    last: int
    of: int


class InMemoryDataset:
    """A set that fits on the device: uint8 (N, S, S, 3) and int64 (N,)."""

    workers = 0

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def read(self, rows: Tensor) -> Tensor:
        """uint8 (n, S, S, 3), where the set and the rows lie."""
        return self.images.index_select(0, rows)  # whole images; indexing would copy byte by byte


class PackedDataset:
    """A split of a packed store. Its parts stay open; nothing but the index is kept in memory.

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
            self.parts = [(store.root / part.file).open("rb", buffering=0) for part in store.parts[split]]
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            parts = len(store.parts[split])
            raise ConfigError(f"a process may not open the {parts} files of {store.root}: ulimit -n 4096") from error
        index = store.index(split)
        self.labels = torch.from_numpy(index["label"].to_numpy().copy())
        self.places = np.stack([index[column].to_numpy() for column in ("part", "offset", "bytes")], axis=1)
        mine = cpu.count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # of those that the run's processes share
        self.workers = workers or (2 if store.plan.form == "raw" else min(16, max(1, mine)))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: Tensor) -> Tensor:
        """uint8 (n, S, S, 3) in the CPU's memory; from any thread.

        Raises:
            TrainingError: the store's files changed under way.
        """
        size, form = self.store.plan.size, self.store.plan.form
        images = torch.empty(len(rows), size, size, 3, dtype=torch.uint8, pin_memory=self.pinned)
        for image, row in zip(images, rows.tolist(), strict=True):
            part, offset, length = self.places[row].tolist()
            try:
                if form == "raw":
                    read_at(self.parts[part].fileno(), offset, memoryview(image.view(-1).numpy()))
                else:
                    cell = bytearray(length)
                    read_at(self.parts[part].fileno(), offset, memoryview(cell))
                    simplejpeg.decode_jpeg(cell, "RGB", buffer=image.numpy())
            except (OSError, ValueError) as error:
                raise TrainingError(
                    f"{self.parts[part].name} cannot be read ({error}): compare the store with its checksums, "
                    f"python -m alexnet_pl.prepare --verify {self.store.root}"
                ) from error
        return images


class BatchLoader:
    """Batches of a set, in the order given anew for each epoch; of each, this process's part.

    Stateful in Lightning's sense: a checkpoint in the middle of an epoch records how many batches were handed out,
    and the resumed epoch goes on with the next one, whatever the layout.

    Args:
        rows: () -> int64 (count,), the rows of an epoch in their order.
        batch_size: images of a batch over all processes.
        transform: (uint8 (n, S, S, 3) on the device, number of the batch, the part they are of it) -> the net's input.
        share: number of this process among those that share the batch, and how many these are.
    """

    def __init__(
        self,
        dataset: InMemoryDataset | PackedDataset,
        rows: Callable[[], Tensor],
        count: int,
        batch_size: int,
        transform: Callable[[Tensor, int, BatchSlice], Tensor],
        device: torch.device,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.dataset, self.rows, self.count, self.batch_size = dataset, rows, count, batch_size
        self.transform, self.device, self.share = transform, device, share
        self.waited = 0.0  # seconds for which the device had nothing to do because images were not read yet
        self.done = 0  # batches handed out in this epoch
        self._start = 0  # where the next epoch begins: 0, or in the middle after load_state_dict

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yields float (n, 3, H, W), int64 (n,), and the batch's images over all processes.

        The last batch of an epoch may be smaller, as in 2012; a process may then have none of it.
        """
        start, self._start = self._start, 0
        self.done, self.waited = start, 0.0
        order = self.rows().to(self.dataset.labels.device)  # once: a GPU would wait for each batch's
        batches = order.split(self.batch_size)[start:]
        parts = [self._part(len(batch)) for batch in batches]
        own = tuple(batch[part.first : part.last] for batch, part in zip(batches, parts, strict=True))
        for rows, part, images in zip(own, parts, self._read(own), strict=True):
            labels = self.dataset.labels[rows]
            self.done += 1
            images, labels = (each.to(self.device, non_blocking=True) for each in (images, labels))
            yield self.transform(images, self.done - 1, part), labels, part.of

    def _part(self, images: int) -> BatchSlice:
        """Equal parts; where they do not come out even the last ones are smaller, as torch.chunk makes them."""
        rank, size = self.share
        part = -(-images // size)
        return BatchSlice(min(rank * part, images), min((rank + 1) * part, images), images)

    def _read(self, batches: tuple[Tensor, ...]) -> Iterator[Tensor]:
        """The images of each batch, read ahead by the set's threads, if it has any."""
        if not self.dataset.workers:
            yield from map(self.dataset.read, batches)
            return
        with ThreadPoolExecutor(self.dataset.workers, thread_name_prefix="images") as pool:
            ahead: deque[Future[Tensor]] = deque()
            try:
                for rows in batches:
                    ahead.append(pool.submit(self.dataset.read, rows))
                    if len(ahead) >= self.dataset.workers + AHEAD:
                        yield self._wait(ahead.popleft())
                while ahead:
                    yield self._wait(ahead.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _wait(self, images: Future[Tensor]) -> Tensor:
        """The images, once they are read. What a GPU has still to do meanwhile is no waiting."""
        began = time.perf_counter()
        while not images.done() and self._busy():
            wait([images], timeout=0.001)
            began = time.perf_counter()
        result = images.result()
        self.waited += time.perf_counter() - began
        return result

    def _busy(self) -> bool:
        """Whether the device has work left; a CPU that waits has none."""
        return self.device.type == "cuda" and not torch.cuda.current_stream(self.device).query()

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = self.done = state["done"]
