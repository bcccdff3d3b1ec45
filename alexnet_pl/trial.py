"""How a run computes on a processor: memory layout, threads and, if asked, precision, by a short trial before it.

Which is fastest depends on the processor and on the net. Each candidate takes a few steps, forward and backward;
weights, and what chance draws, stay as they were. The configuration's own way is kept unless another is clearly faster,
since another order of additions gives other last digits. The choice is kept in the run's folder (speed.json): the run
takes it again when it is continued, and so do later runs beside it of the same net and batch on the same machine, so
that what is compared was computed alike. Jobs that begin at the same moment each make their own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from alexnet_pl import config, data, describe, layouts, module, provenance, runs
from alexnet_pl.files import read_json, write

STEPS = 3
"""Steps of each candidate, after a first"""
SHARE = 0.02
"""No trial where it would take more than this of the run"""
MARGIN = 1.1
"""So many times as fast another way must be"""


@dataclass(frozen=True)
class Way:
    """How to compute."""

    channels_last: bool
    threads: int
    precision: str  # as trainer.precision, never auto

    def __str__(self) -> str:
        layout = "channels-last" if self.channels_last else "NCHW"
        return f"{layout}, {self.precision}, {self.threads} thread{'s' * (self.threads > 1)}"


def choose(
    cfg: config.Config,
    run: runs.Run,
    classifier: module.Classifier,
    pictures: data.Pictures,
    say: Callable[[str], None],
) -> str:
    """Make net and threads ready for the fastest way, and return the precision to train with.

    There is nothing to choose with trial=false, on several devices, on a GPU, for a short run, or for one that began
    without a trial.

    Args:
        say: takes the line about what was tried.
    """
    way = Way(cfg.model.channels_last, torch.get_num_threads(), layouts.precision(cfg.trainer))
    if not _alone_on_a_processor(cfg):
        return way.precision
    kept = read_json(run.folder / "speed.json")
    anew = cfg.trial and not run.last.is_file()
    found = kept or (_beside(cfg, run) if anew else {})
    if found:
        way = Way(**found["way"])
        if any(found["of"][key] != _of(cfg)[key] for key in ("machine", "threads")):  # it goes on somewhere else
            way = replace(way, threads=torch.get_num_threads())
    elif anew and _long(cfg, pictures):
        way, speeds = _try(cfg, way, classifier, pictures)
        found = {"of": _of(cfg), "way": asdict(way), "images_per_second": speeds}
        told = ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items())
        say(f"  tried for a moment, images/s: {told}. Goes on with {way} (trial=false tries nothing)")
    else:
        return way.precision
    if not kept:
        write(run.folder / "speed.json", json.dumps(found, indent=1))
    torch.set_num_threads(way.threads)
    classifier.lay_out(way.channels_last)
    return way.precision


def _alone_on_a_processor(cfg: config.Config) -> bool:
    elsewhere = cfg.trainer.accelerator != "cpu" and torch.accelerator.is_available()
    mixed = layouts.precision(cfg.trainer) in ("32-true", "bf16-mixed")
    return not elsewhere and mixed and layouts.layout(cfg.trainer).processes == 1


def _long(cfg: config.Config, pictures: data.Pictures) -> bool:
    """Whether the run has time for a trial."""
    pictures.prepare_data()
    pictures.setup("fit")
    to_see = describe.to_see(cfg, len(pictures.train))
    candidates = 3 + 2 * (cfg.trainer.precision == "auto")
    return to_see is None or SHARE * to_see / cfg.data.batch_size >= candidates * (1 + STEPS)


def _of(cfg: config.Config) -> dict[str, Any]:
    """What a choice is good for."""
    return {
        "net": cfg.model.name,
        "width": cfg.model.width,
        "image_size": cfg.data.image_size,
        "batch_size": cfg.data.batch_size,
        "channels_last": cfg.model.channels_last,
        "precision": cfg.trainer.precision,
        "machine": f"{provenance.processor()}, {provenance.processors()} processors",
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _beside(cfg: config.Config, run: runs.Run) -> dict[str, Any]:
    """The choice of an earlier run in the same folder of runs, if it fits."""
    for other in sorted(run.folder.parent.glob("*/speed.json")):
        if (found := read_json(other)).get("of") == _of(cfg):
            return found
    return {}


def _try(
    cfg: config.Config, usual: Way, classifier: module.Classifier, pictures: data.Pictures
) -> tuple[Way, dict[str, float]]:
    """The fastest way, and the pictures per second of all that were tried."""
    rows = torch.arange(cfg.data.batch_size) % len(pictures.train)
    labels = pictures.train.labels[rows]
    with torch.random.fork_rng(devices=[]):
        images = pictures.train_input(pictures.train.read(rows), 0)
    speeds: dict[Way, float] = {}

    def speed(way: Way) -> float:
        if way not in speeds:
            speeds[way] = _speed(classifier, way, images, labels)
        return speeds[way]

    precisions = ["32-true", "bf16-mixed"] if cfg.trainer.precision == "auto" else [usual.precision]
    for precision in precisions:
        for last in (usual.channels_last, not usual.channels_last):
            speed(replace(usual, precision=precision, channels_last=last))
    best = max(speeds, key=speed)
    if usual.threads > 1 and "OMP_NUM_THREADS" not in os.environ:  # which a user sets for a reason
        speed(replace(best, threads=usual.threads // 2))
    best = max(speeds, key=speed)
    chosen = best if speed(best) >= MARGIN * speed(usual) else usual
    return chosen, {str(way): round(value, 1) for way, value in speeds.items()}


def _speed(classifier: module.Classifier, way: Way, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Pictures per second, forward and backward."""
    threads = torch.get_num_threads()
    torch.set_num_threads(way.threads)
    classifier.lay_out(way.channels_last)
    taken = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(1 + STEPS):
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=way.precision == "bf16-mixed"):
                loss = F.cross_entropy(classifier(images), labels)
            loss.backward()
            classifier.zero_grad()
            taken.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return len(images) / min(taken[1:])
