"""The length of a run in images."""

from __future__ import annotations

from alexnet_pl.config.schema import Config, Data
from alexnet_pl.data import store
from alexnet_pl.data.datasets import SMALL_DATASETS
from alexnet_pl.files import expand


def length_summary(cfg: Config, images: int | None) -> str:
    """Return the length of a run in words, by the number of its training images; empty if the length is open."""
    seen = images_in_run(cfg, images)
    return f"{seen:,} images to see" if seen else ""


def images_in_run(cfg: Config, images: int | None) -> int | None:
    """Return how many images a run will see, by the number of its training images; None if that is open."""
    t, batch_size = cfg.trainer, cfg.data.batch_size
    steps, epochs = t.max_steps or -1, t.max_epochs or -1
    ends = [steps * (t.accumulate_grad_batches or 1) * batch_size] if steps > 0 else []
    if epochs > 0 and images:
        limit = 1.0 if t.limit_train_batches is None else t.limit_train_batches
        share = limit * images if isinstance(limit, float) else limit * batch_size
        ends.append(epochs * min(images, round(share)))
    return min(ends) if ends else None


def training_images(d: Data) -> int | None:
    """Return the number of training images of a dataset; None if that is not known before it is opened."""
    if d.packed:
        found = store.read(expand(d.root or ""))
        return found.images["train"] if found else None
    return SMALL_DATASETS[d.kind].train_images
