"""Settings that make tests quick; import this first.

Each process has one thread, as the tests run side by side. Generated images are drawn once a process, for all its runs
and for the processes forked from it.
"""

from __future__ import annotations

import functools
import os

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported

import torch

from alexnet_pl.data import shapes

torch.set_num_threads(1)
shapes.draw_shapes = functools.cache(shapes.draw_shapes)
