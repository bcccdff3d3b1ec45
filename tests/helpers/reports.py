"""Run folders made by hand, whose curves are straight lines: every crossing is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_pl.config.choices import Activation, Arch, LoggerName
from alexnet_pl.config.schema import Config, Data, Logger, Model, Optim, Report, Trainer, as_dict
from alexnet_pl.runs.metrics import write_rows
from alexnet_pl.runs.naming import job_folder_name
from alexnet_pl.runs.run import Run

IMAGES = 1000
WINDOWS = (300, 200, 200, 300)  # of unequal size, as where the batches do not divide the epoch
NASTY = "<script>alert(1)</script> & $x^$ [b]"
NAMES = (
    "<img src=x onerror=alert(1)>", "`a`<script>alert(2)</script>`b`", "=cmd|' /C calc'!A0", "-2+3+cmd|'x'!A1",
    "@SUM(1+1)*cmd", "\x1b[31mred\x1b[0m", "dog :smile:", "猫と犬", "# head & tail", "$x^2$ ~a~ 100% {b} c_d",
    "[x](javascript:alert(3))", "two\nlines", "\\input{/etc/passwd}", "1. **b** | c",
    "\N{POSITION INDICATOR} &lt;b&gt;",
)  # fmt: skip
"""What a stranger may call a class, a file, a run or a panel"""
LRN = {"off": [], "on": ["conv1"]}


def settings(activation: Any = "relu", seed: Any = 1, lr: Any = 0.01, **other: Any) -> dict[str, Any]:
    """Return a run's configuration; `other` replaces dotted keys, with __ for the dot."""
    plain = as_dict(
        Config(
            name="test",
            seed=seed,
            train_error_window=250,
            train_eval_images=100,
            model=Model("convnet", Arch.convnet, 10, 32, activation=Activation[activation]),
            data=Data("shapes", "shapes", num_classes=10),
            optim=Optim(lr=lr),
            trainer=Trainer(max_epochs=20),
            logger=Logger(LoggerName.csv),
            report=Report(
                "raw", ["model.activation"], target=0.25, published={"relu": "5 to 6", "tanh": "35 to 36", "ratio": "6"}
            ),
        )
    )
    for key, value in other.items():
        group, _, leaf = key.rpartition("__")
        (plain[group] if group else plain)[leaf] = value
    return plain


def rows(crosses: float, epochs: int, wobble: float = 0.0, ahead: float = 1.0) -> list[dict[str, float]]:
    """Return metrics whose running error falls in a straight line and is 0.25 at `crosses`.

    The error on the training subset is `ahead` epochs ahead.

    `wobble` is added to the 2nd window of each epoch and taken from the 3rd, which is as large: an epoch's mean over
    whole pairs does not see it.
    """

    def error(x: float) -> float:
        return 0.25 + 0.05 * (crosses - x)

    out: list[dict[str, float]] = []
    seen = 0
    for epoch in range(epochs):
        for size, bump in zip(WINDOWS, (0, wobble, -wobble, 0), strict=True):
            centre, seen = (seen + size / 2) / IMAGES, seen + size
            out.append({"epoch": seen / IMAGES, "images_seen": seen, "train/error": error(centre) + bump})
        whole = {
            "train/epoch_error": error(epoch + 0.5),
            "val/error": 0.4,
            "train_eval/error": error(epoch + 1 + ahead),
        }
        out.append({"epoch": epoch + 1, "images_seen": seen, **whole})
    return out


def make_run(
    folder: Path,
    plain: dict[str, Any],
    metrics: list[dict[str, float]],
    done: bool = True,
    overrides: Sequence[str] = (),
) -> Run:
    """Write a run folder, as a run that was started with `overrides` leaves it."""
    run = Run(folder)
    run.start(plain, list(overrides))
    if metrics:
        write_rows(folder / "metrics.csv", metrics)
    if done:
        run.finish({}, 1.0)
    return run


def lrn_run(
    folder: Path,
    lrn: str,
    seed: int,
    val: float,
    more: dict[str, float] | None = None,
    views: int = 0,
    done: bool = True,
) -> Run:
    """Write a run of a sweep over model.lrn that ends with these errors."""
    value = f"[{','.join(LRN[lrn])}]"
    overrides = [f"model.lrn={value}", f"seed={seed}", "sweep=lrn", "data.root=/x"]
    plain = settings(seed=seed, model__lrn=LRN[lrn], test_views=views, report__compare=[], report__target=None)
    plain["report"] |= {"published": {}, "panel": ""}
    metrics = rows(9, 4)
    metrics[-1] |= {"val/error": val} | (more or {})
    return make_run(folder / job_folder_name(overrides, plain["seed"]), plain, metrics, done, overrides)
