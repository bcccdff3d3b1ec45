"""What a process that composes configurations does once: done in the server that tests/forked.py forks from."""

import gc

from alexnet_pl import data
from tests.conftest import composed

composed("experiment=figure1")
for split in data.SHAPES.values():
    data.shapes(*split)
gc.collect()
gc.freeze()  # or the first collection in a fork would copy all pages
