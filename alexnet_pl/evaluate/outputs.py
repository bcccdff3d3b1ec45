"""What an evaluation leaves in its folder, as files that other programs read."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from alexnet_pl import files
from alexnet_pl.evaluate.predictions import BINS, Predictions, by_class, calibration, summary
from alexnet_pl.evaluate.settings import Settings
from alexnet_pl.runs import provenance
from alexnet_pl.runs.run import CHECKPOINT_NAMES, Run


def write_predictions(found: Predictions, names: list[str], classes: list[str], path: Path) -> None:
    """A Parquet file with a row for each image; its columns:

    name                its file in a packed store, or its number
    label, class        the right class, by number and by name
    predicted, predicted_class, correct, probability    the likeliest class, whether it is the right one, how likely
    rank, right_probability        of the right class; rank 1 is the likeliest
    top5, top5_classes, top5_probabilities        the five likeliest, in this order
    """
    called = np.array(classes, dtype=object)
    flat = pa.array(called[found.top.ravel()], pa.string())
    offsets = np.arange(len(found.top) + 1, dtype=np.int32) * found.top.shape[1]

    def lists(values: Any) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, values)

    table = pa.table(
        {
            "name": names,
            "label": found.labels,
            "class": pa.array(called[found.labels], pa.string()),
            "predicted": found.predicted,
            "predicted_class": pa.array(called[found.predicted], pa.string()),
            "correct": found.correct,
            "probability": found.confidence,
            "rank": found.rank,
            "right_probability": np.exp(found.right),
            "top5": lists(found.top.ravel()),
            "top5_classes": lists(flat),
            "top5_probabilities": lists(found.probability.ravel()),
        }
    )
    with files.beside(path) as part:
        pyarrow.parquet.write_table(table, part)


def write_classes(found: Predictions, classes: list[str], path: Path) -> None:
    """A CSV file with a row for each class: its number, name, images, right answers, accuracy (empty without any)."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["label", "class", "images", "correct", "accuracy"])
    for label, (count, correct) in enumerate(zip(*by_class(found, len(classes)), strict=True)):
        rows.writerow([label, classes[label], count, correct, correct / count if count else ""])
    files.write(path, text.getvalue())


def write_evaluation(
    found: list[Predictions], members: list[Run], settings: Settings, about: dict[str, Any], path: Path
) -> None:
    """evaluation.json: who looked at what and how, the figures of each member and of all, and which code says so."""
    *each, together = found
    bins = calibration(together)
    columns = zip(*(values.tolist() for values in bins), strict=True)
    plain = {
        **summary(together),
        "views": settings.views,
        "average": settings.average,
        "weights": settings.weights,
        "split": settings.split,
        "images": len(together.labels),
        **about,
        "members": [
            {
                "name": run.folder.name,
                "folder": str(run.folder),
                "id": run.identity.get("id"),
                "checkpoints": [str(_checkpoint(run, name)) for name in settings.weights],
                **summary(own),
            }
            for run, own in zip(members, each, strict=True)
        ],
        "calibration": [
            {"from": i / BINS, "to": (i + 1) / BINS, "images": count, "confidence": confidence, "accuracy": accuracy}
            for i, (count, confidence, accuracy) in enumerate(columns)
        ],
        "evaluated": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": provenance.git_state(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
    files.write(path, json.dumps(plain, indent=1, allow_nan=False))


def _checkpoint(run: Run, name: str) -> Path:
    return run.last.with_name(f"{name}.ckpt") if name in CHECKPOINT_NAMES else Path(name)
