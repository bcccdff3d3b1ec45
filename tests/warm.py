"""What a process that composes configurations does once: done in the server that tests/forked.py forks from."""

import gc

from alexnet_pl.data import datamodule
from tests.conftest import composed

composed("experiment=figure1")
for split in datamodule.SHAPES_SPLITS.values():
    datamodule.draw_shapes(*split)
gc.collect()
gc.freeze()  # or the first collection in a fork would copy all pages
