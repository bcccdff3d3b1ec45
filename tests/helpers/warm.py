"""What a process that trains does once, done by the server that processes.py forks from."""

import gc

from alexnet_pl.data import datasets, shapes
from tests.helpers import speed  # noqa: F401
from tests.helpers.runs import run_config

run_config("experiment=figure1")
for split in datasets.SHAPES_SPLITS.values():
    shapes.draw_shapes(datasets.SHAPES_CLASSES, *split)
gc.collect()
gc.freeze()  # or the first collection in a fork would copy all pages
