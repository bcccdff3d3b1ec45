"""A packed dataset in the device's memory: its images are read once, at the start, and batches are gathered there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from alexnet_pl import cpu
from alexnet_pl.config.choices import OnDevice
from alexnet_pl.data.loader import InMemoryDataset, PackedDataset
from alexnet_pl.errors import ConfigError

SHARE = 4
"""A split may take a quarter of a GPU's free memory: the rest is the net's, and other jobs'"""
CHUNK = 256
"""Images that a thread reads and copies at a time"""


def place(
    dataset: InMemoryDataset | PackedDataset, device: torch.device, choice: OnDevice
) -> InMemoryDataset | PackedDataset:
    """Return a split with its images in the device's memory, where that is chosen; else as it is.

    Args:
        choice: data.on_device; if_it_fits: on a GPU, if images are raw and take a quarter of its free memory at most.
    Raises:
        ConfigError: they are always to lie there, and do not fit.
        TrainingError: the store's files changed under way.
    """
    if not isinstance(dataset, PackedDataset) or choice is OnDevice.never:
        return dataset
    count, size, on_gpu = len(dataset), dataset.store.plan.size, device.type == "cuda"
    needed = count * 3 * size**2
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else cpu.memory()
    if choice is OnDevice.if_it_fits and not (on_gpu and dataset.store.plan.form == "raw" and SHARE * needed <= free):
        return dataset
    if needed > free:
        raise ConfigError(
            f"data.on_device=always: {count:,} images of {size}x{size} are {needed / 1e9:.3g} GB, and the device has "
            f"{free / 1e9:.3g} GB free: set data.on_device=if_it_fits"
        )
    images = torch.empty(count, size, size, 3, dtype=torch.uint8, device=device)

    def fill(first: int) -> None:
        images[first : first + CHUNK] = dataset.read(torch.arange(first, min(first + CHUNK, count)))

    with ThreadPoolExecutor(dataset.workers, thread_name_prefix="images") as pool:
        list(pool.map(fill, range(0, count, CHUNK)))
    return InMemoryDataset(images, dataset.labels.to(device))
