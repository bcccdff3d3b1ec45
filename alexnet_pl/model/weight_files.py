"""Read files of weights: bytes and tensors, no more than an AlexNet has, and without running a pickle."""

from __future__ import annotations

import http.client
import warnings
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from alexnet_pl.errors import ConfigError, first_line
from alexnet_pl.files import require_file

LARGEST = 2**31
"""Most bytes of a file, and of the weights in it: eight times those of AlexNet"""


def checked(path: Path) -> Path:
    """Return a path, after checking that it is a file of a size that weights may have.

    Raises:
        ConfigError: it is not.
    """
    try:
        size = require_file(path, "give a file of weights")
    except OSError as error:  # not there, or not a name that could be
        raise ConfigError(f"there is no file {path}: give a file of weights") from error
    if size > LARGEST:
        raise ConfigError(f"{path} is larger than {LARGEST // 2**30} GiB, which no AlexNet is: give a file of weights")
    return path


def load_tensors(path: Path) -> Any:
    """Return weights that torch.save has written.

    Raises:
        ConfigError: they cannot be read, or are too large.
    """
    checked(path)
    try:
        if is_zipfile(path):
            with ZipFile(path) as parts:
                if sum(part.file_size for part in parts.infolist()) > LARGEST:
                    raise ConfigError(f"{path} claims to unpack to more than {LARGEST // 2**30} GiB: it is not read")
        return load_torch(path)
    except (ValueError, OSError, NotImplementedError, BadZipFile) as error:
        raise ConfigError(f"{path} cannot be read as weights ({first_line(error)}): is it whole?") from error


def load_torch(path: Path, mmap: bool = False) -> Any:
    """Return the content of a file of torch.save, without running code of the pickle.

    Args:
        mmap: whether to leave tensors on the disk until they are used.
    Raises:
        ValueError: torch cannot read it; the text says why in a few words.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a foreign file's make
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged or foreign file makes torch say anything
        reason = first_line(error).split(". ")[0]  # what follows is advice of torch's for those who trust the file
        raise ValueError(f"torch cannot read it: {reason}") from error


def load_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a state dict or a safetensors file; all must hold floating-point numbers.

    Raises:
        ConfigError: it holds something else, or cannot be read.
    """
    with checked(path).open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"  # the length of its head, which is JSON
    if is_safetensors:
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ConfigError(f"{path} cannot be read as safetensors ({first_line(error)}): is it whole?") from error
    else:
        state = load_tensors(path)
    if not isinstance(state, dict) or not state:
        raise ConfigError(f"{path} holds no state dict: give a file with one tensor for each name")
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided):
            raise ConfigError(f"{path} holds no plain state dict, but {name!r}: give one tensor for each name")
        if not value.is_floating_point():
            raise ConfigError(f"{path} has {name} of {value.dtype}: weights must be floating-point numbers")
    return state


def torchvision_file() -> Path:
    """Return the file of torchvision's published weights, which torch.hub downloads once.

    Raises:
        ConfigError: it cannot be fetched.
    """
    from torchvision.models import AlexNet_Weights

    url = AlexNet_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            reason = first_line(error)
            raise ConfigError(f"torchvision's weights cannot be fetched ({reason}): give their .pth file") from error
    return path
