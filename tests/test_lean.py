"""What a job of a sweep does not wait for."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from alexnet_pl import lean
with lean.imports():
    import pytorch_lightning
from alexnet_pl import checkpoints, data, logger, module, progress, strategies, trained, trial, watchdog
print(*sorted({"scipy", "torchvision", "matplotlib"} & set(sys.modules)))
from torchmetrics.utilities.imports import _SCIPY_AVAILABLE, _TORCHVISION_AVAILABLE
from torchmetrics.classification import MulticlassAccuracy
import scipy.signal, torchvision.ops, matplotlib.pyplot
print(bool(_SCIPY_AVAILABLE), bool(_TORCHVISION_AVAILABLE))
"""


def test_a_run_imports_none_of_what_only_metrics_need_and_others_still_can():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["", "True True"], done.stderr
