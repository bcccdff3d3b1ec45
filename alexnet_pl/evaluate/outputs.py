"""Write the files of an evaluation that other programs read."""

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
from alexnet_pl.evaluate.predictions import BINS, Predictions, calibration, class_counts, summary
from alexnet_pl.evaluate.settings import Member, Settings
from alexnet_pl.runs import provenance
from alexnet_pl.runs.run import CHECKPOINT_NAMES, Run


def write_predictions(predictions: Predictions, names: list[str], classes: list[str], path: Path) -> None:
    """Write a Parquet file with a row for each image, in these columns:

    name                its file in a packed store, or its number
    label, class        the right class, by number and by name
    predicted, predicted_class, correct, probability    the likeliest class, whether it is the right one, how likely
    rank, right_probability        of the right class; rank 1 is the likeliest
    top5, top5_classes, top5_probabilities        the five likeliest, in this order
    """
    class_names = np.array(classes, dtype=object)
    flat = pa.array(class_names[predictions.top.ravel()], pa.string())
    offsets = np.arange(len(predictions.top) + 1, dtype=np.int32) * predictions.top.shape[1]

    def lists(values: Any) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, values)

    table = pa.table(
        {
            "name": names,
            "label": predictions.labels,
            "class": pa.array(class_names[predictions.labels], pa.string()),
            "predicted": predictions.predicted,
            "predicted_class": pa.array(class_names[predictions.predicted], pa.string()),
            "correct": predictions.correct,
            "probability": predictions.confidence,
            "rank": predictions.rank,
            "right_probability": np.exp(predictions.right),
            "top5": lists(predictions.top.ravel()),
            "top5_classes": lists(flat),
            "top5_probabilities": lists(predictions.probability.ravel()),
        }
    )
    with files.atomic_path(path) as part:
        pyarrow.parquet.write_table(table, part)


def write_classes(predictions: Predictions, classes: list[str], path: Path) -> None:
    """Write a CSV file with a row for each class: number, name, images, right predictions, accuracy (or nothing)."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["label", "class", "images", "correct", "accuracy"])
    for label, (count, correct) in enumerate(zip(*class_counts(predictions, len(classes)), strict=True)):
        rows.writerow([label, files.csv_cell(classes[label]), count, correct, correct / count if count else ""])
    files.write(path, text.getvalue())


def write_evaluation(
    predictions: list[Predictions], members: list[Member], settings: Settings, about: dict[str, Any], path: Path
) -> None:
    """Write evaluation.json: the nets, the images, the settings, the results of each member and of all, and the code.

    Args:
        predictions: predictions of each member, and last of all together.
        about: further entries of the file, about data and device.
    """
    *each, ensemble = predictions
    bins = calibration(ensemble)
    columns = zip(*(values.tolist() for values in bins), strict=True)
    plain = {
        **summary(ensemble),
        "views": settings.views,
        "average": settings.average,
        "weights": settings.weights,
        "split": settings.split,
        "images": len(ensemble.labels),
        **about,
        "members": [
            {
                "name": member.name,
                "folder": member.word,
                "id": member.run and member.run.identity.get("id"),
                "checkpoints": [str(_checkpoint(member.run, name)) for name in settings.weights if member.run],
                **summary(own),
            }
            for member, own in zip(members, each, strict=True)
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
