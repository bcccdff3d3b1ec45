"""Settings that make tests quick; import this first.

Each process has one thread, as the tests run side by side. Batches of an evaluation are small. Generated images are
drawn once a process, for all its runs and for the processes forked from it.
"""

from __future__ import annotations

import functools
import os

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported

import torch

from alexnet_pl.data import datamodule, shapes

torch.set_num_threads(1)
datamodule.EVAL_PIXELS = 2**17  # batches of 128 images of 32 pixels, where a run would take 1,000
shapes.draw_shapes = functools.cache(shapes.draw_shapes)
