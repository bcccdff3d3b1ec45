"""What a process that composes configurations does once: done in the server that processes.py forks from."""

import gc

from alexnet_pl.data import datasets, shapes
from tests.conftest import composed

composed("experiment=figure1")
for split in datasets.SHAPES_SPLITS.values():
    shapes.draw_shapes(*split)
gc.collect()
gc.freeze()  # or the first collection in a fork would copy all pages
