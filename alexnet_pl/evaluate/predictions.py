"""The predictions of nets for images: averages, errors, calibration, confusions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

TOP = 5
"""Number of likeliest classes that are stored for each image"""
BINS = 15
"""Number of bins of confidence, equally wide"""


def average(logits: Tensor, by: str) -> Tensor:
    """Return the average prediction of views, nets, or views by nets, for each image.

    Log-probabilities in float64 keep the ranks of unlikely classes, which a float32 softmax would round to an equal 0.
    The command predict shows likely classes only, so it averages that softmax. Training clamps it, to log its loss.

    Args:
        logits: (n, predictions, classes).
        by: what to average: probabilities, as in 2012, or logits.
    Returns:
        Log-probabilities, float64 (n, classes), on the CPU.
    """
    several = logits.cpu().double()  # not every device has float64
    if by == "logits":
        return several.mean(1).log_softmax(1)
    return several.log_softmax(2).logsumexp(1) - math.log(several.shape[1])


class Predictions(NamedTuple):
    """Predictions for n images, without the probabilities of unlikely classes."""

    labels: np.ndarray
    """int64 (n,)"""
    rank: np.ndarray
    """int64 (n,): rank of the right class; 1 is the likeliest, and the first of equal classes counts as likelier"""
    right: np.ndarray
    """float64 (n,): log-probability of the right class"""
    top: np.ndarray
    """int64 (n, 5): the likeliest classes, fewer if there are fewer"""
    probability: np.ndarray
    """float64 (n, 5): their log-probabilities"""

    @property
    def predicted(self) -> np.ndarray:
        return self.top[:, 0]

    @property
    def correct(self) -> np.ndarray:
        return self.rank == 1

    @property
    def confidence(self) -> np.ndarray:
        return self.probability[:, 0]


def make_predictions(scores: Tensor, labels: Tensor) -> Predictions:
    """Return the predictions in log-probabilities (n, classes), with labels (n,)."""
    labels = labels.cpu()
    order = scores.sort(dim=1, descending=True, stable=True)
    rank = 1 + (order.indices == labels[:, None]).int().argmax(1)
    right = scores.gather(1, labels[:, None])[:, 0]
    top = order.indices[:, :TOP].clone(), order.values[:, :TOP].exp()  # a view would keep all the rest
    return Predictions(*(each.numpy() for each in (labels, rank, right, *top)))


def concatenate(batches: list[Predictions]) -> Predictions:
    """Return the predictions of all batches."""
    return Predictions(*map(np.concatenate, zip(*batches, strict=True)))


class Calibration(NamedTuple):
    """Images in bins of the predicted class's probability: above i / 15, up to and including (i + 1) / 15."""

    images: np.ndarray
    """int64 (bins,)"""
    confidence: np.ndarray
    """float64 (bins,): mean probability; 0 in an empty bin"""
    accuracy: np.ndarray
    """float64 (bins,): share of right predictions; 0 in an empty bin"""

    @property
    def error(self) -> float:
        """Expected calibration error (Guo et al., 2017)."""
        return float((self.images * abs(self.accuracy - self.confidence)).sum() / self.images.sum())


def calibration(predictions: Predictions) -> Calibration:
    """Sort images into bins by their confidence."""
    edges = np.linspace(0, 1, BINS + 1)
    place = np.digitize(predictions.confidence, edges[1:-1], right=True)
    count = np.bincount(place, minlength=BINS)
    confidence, accuracy = (
        np.bincount(place, weights, BINS) / count.clip(1) for weights in (predictions.confidence, predictions.correct)
    )
    return Calibration(count, confidence, accuracy)


def summary(predictions: Predictions) -> dict[str, float]:
    """Return errors as shares between 0 and 1; nll is the mean of -log(probability of the right class)."""
    return {
        "error": float(np.mean(predictions.rank > 1)),
        "top5_error": float(np.mean(predictions.rank > TOP)),
        "nll": float(-predictions.right.mean()),
        "calibration_error": calibration(predictions).error,
    }


def class_counts(predictions: Predictions, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each class the number of images and of right predictions: int64 (classes,) each."""
    right = predictions.labels[predictions.correct]
    return np.bincount(predictions.labels, minlength=classes), np.bincount(right, minlength=classes)


def confusion(predictions: Predictions, classes: int) -> np.ndarray:
    """Return int64 (classes, classes): images by right class (row) and predicted class (column)."""
    return np.bincount(predictions.labels * classes + predictions.predicted, minlength=classes**2).reshape(
        classes, classes
    )


def confused_pairs(predictions: Predictions) -> list[tuple[int, int, int]]:
    """Return right class, predicted class and images of each confused pair, the most frequent first."""
    wrong = ~predictions.correct
    pairs, counts = np.unique(
        np.stack([predictions.labels, predictions.predicted])[:, wrong], axis=1, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [(int(pairs[0, i]), int(pairs[1, i]), int(counts[i])) for i in order]
