"""AlexNet (Krizhevsky, Sutskever, Hinton, 2012) as a Lightning experiment package."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    __version__ = version("alexnet-pl")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+checkout"

_HERE = Path(__file__).resolve().parent
ROOT = _HERE if (_HERE / "conf").is_dir() else _HERE.parent
"""The folder that holds conf/ and sweeps/: inside the package in a wheel, beside it in a checkout."""
