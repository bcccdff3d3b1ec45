"""Find the images that are most alike in the last hidden layer: Figure 4, right (section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from alexnet_pl.data.image_files import ImageFiles, StoreImages, image_batches
from alexnet_pl.model.layers import MaskDropout
from alexnet_pl.runs.trained import TrainedModel

NEAREST = 6
"""Number of neighbours of an image in the paper's figure"""


@dataclass(frozen=True)
class Neighbour:
    """An image of the gallery, with its distance."""

    number: int
    name: str
    label: str
    distance: float


def hidden_layers(net: TrainedModel) -> TrainedModel:
    """Return a net up to its last hidden layer: fc7 with its activation, before dropout.

    A net without a hidden fully connected layer ends before its only one.
    """
    layers = list(net.net.children())[:-1]
    while isinstance(layers[-1], (nn.Dropout, MaskDropout)):
        layers.pop()
    return replace(net, net=nn.Sequential(*layers))


def nearest_images(
    net: TrainedModel,
    units: Tensor,
    names: Sequence[str],
    gallery: ImageFiles | StoreImages,
    advance: Callable[[int], None],
) -> list[list[Neighbour]]:
    """Find the nearest images of a gallery for each of some images, by Euclidean distance in the last hidden layer.

    Args:
        net: `hidden_layers` of a net.
        units: float (n, units), its outputs for the n images.
        names: names of the n images; a file is not its own neighbour.
        advance: called with the number of further images of the gallery that are done.
    Returns:
        For each image up to six neighbours, the nearest first.
    """
    own = {Path(name).resolve(): row for row, name in enumerate(names)} if isinstance(gallery, ImageFiles) else {}
    nearest, which = units.new_empty(len(units), 0), torch.empty(len(units), 0, dtype=torch.long)
    for numbers, squares in image_batches(gallery):
        # not by a matrix product, which loses the digits of small distances
        apart = torch.cdist(units, net.outputs(squares)[:, 0], compute_mode="donot_use_mm_for_euclid_dist")
        for column, number in enumerate(numbers if own else []):
            if (row := own.get(Path(gallery.names[number]).resolve())) is not None:
                apart[row, column] = torch.inf
        nearest, order = torch.cat([nearest, apart], 1).sort(stable=True, dim=1)
        nearest, order = nearest[:, :NEAREST], order[:, :NEAREST].cpu()
        which = torch.cat([which, torch.tensor(numbers).expand(len(units), -1)], 1).gather(1, order)
        advance(len(numbers))
    return [
        [Neighbour(n, gallery.names[n], gallery.labels[n], d) for d, n in zip(*row, strict=True) if d < torch.inf]
        for row in zip(nearest.tolist(), which.tolist(), strict=True)
    ]
