"""Write predictions and neighbours as text that other programs read: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from alexnet_pl import files
from alexnet_pl.predict.neighbours import Neighbour
from alexnet_pl.predict.predictions import Prediction
from alexnet_pl.runs.trained import TrainedModel


def to_csv(predictions: Sequence[Prediction]) -> str:
    """Return a line for each guess: image, class (the right one, if known), rank, guess, probability."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", "class", "rank", "guess", "probability"])
    for each in predictions:
        for rank, (label, share) in enumerate(each.top, 1):
            name, known, guess = map(files.csv_cell, (each.name, each.label or "", label))
            writer.writerow([name, known, rank, guess, f"{share:.7g}"])
    return out.getvalue()


def to_json(
    net: TrainedModel, views: int, predictions: Sequence[Prediction], nearest: Sequence[list[Neighbour]]
) -> str:
    """Return the net, and for each image its likeliest classes and its neighbours.

    Args:
        nearest: the neighbours of each image; empty if none were asked for.
    """
    rows = []
    for number, each in enumerate(predictions):
        top = [{"class": label, "probability": share} for label, share in each.top]
        row = {"image": each.name, "class": each.label, "rank": each.rank, "guesses": top}
        if nearest:
            near = [{"image": n.name, "class": n.label, "distance": n.distance} for n in nearest[number]]
            row["neighbours"] = near
        rows.append(row)
    return json.dumps({"net": net.name, "views": views, "images": rows}, indent=1)
