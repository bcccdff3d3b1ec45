"""Write a trained net for other programs, as ONNX or as plain weights.

    python -m alexnet_pl.export runs/alexnet                        net.onnx
    python -m alexnet_pl.export runs/alexnet --format safetensors   net.safetensors, to share
    python -m alexnet_pl.export runs/alexnet --format torch         net.pt
    python -m alexnet_pl.export caffe:bvlc_alexnet.caffemodel --out folder

The folder can be uploaded as it is. README.md is a model card with the run's data, recipe, errors
and commit. preprocessing.json, mean.npy and config.yaml lie beside the weights. The other commands
take the folder in place of a run, unless it holds net.onnx.

The ONNX net takes pixels as they are: float32 (images, 3, H, W), RGB of 0..255, any number of
images. It subtracts the mean image, applies the scale, and gives logits. Resize and crop before.
The other formats are state dicts. For them, also subtract the mean image and apply the scale.
preprocessing.json says what to do to an image, and how to build the net with this package (`model`).
The ONNX file carries the same text as metadata. The command reads the export back and compares it
before the files take their places.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from alexnet_pl import files
from alexnet_pl.config.choices import Squares
from alexnet_pl.config.schema import as_dict
from alexnet_pl.console import exit_on_error, start_command
from alexnet_pl.data import augment
from alexnet_pl.data.image_files import ImageFiles, find_images
from alexnet_pl.errors import ConfigError, UserError, visible
from alexnet_pl.model.build import build_net
from alexnet_pl.model.weight_files import load_state
from alexnet_pl.runs import checkpoint
from alexnet_pl.runs.card import model_card
from alexnet_pl.runs.naming import WEIGHTS_WORDS
from alexnet_pl.runs.trained import TrainedModel, load

OPSET = 20
"""Version of ONNX's operators. From 19 on, pools that round up divide by the pixels that exist, as in torch."""
TOLERANCE = 1e-4
"""Largest difference of logits that is accepted, as a share of the largest logit"""
FORMATS = {"onnx": "net.onnx", "safetensors": "net.safetensors", "torch": "net.pt"}
ABOUT = "preprocessing.json"
"""Written first, so that it also marks the folder of an export"""
SHORTER = "the shorter side is scaled, bilinear and antialiased, the longer one is rounded down, the middle is kept; "
HOW = {
    Squares.centre: SHORTER + "of an odd margin one pixel more is left below and right",
    Squares.torchvision: SHORTER + "half of an odd margin is rounded to the even number, as by torchvision",
    Squares.warp: "both sides are scaled, bilinear and antialiased, as for Caffe",
}
"""How an image becomes a square, in words"""


class Centred(nn.Module):
    """A net behind its own preprocessing."""

    mean: Tensor

    def __init__(self, net: TrainedModel) -> None:
        super().__init__()
        self.net, self.scale, self.classes = net.net, net.cfg.data.pixel_scale, len(net.classes)
        self.register_buffer("mean", net.mean.permute(2, 0, 1).contiguous())

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 (N, 3, H, W), RGB of 0..255 -> logits (N, classes)."""
        return self.net((pixels - self.mean) / self.scale)[:, : self.classes]


def export(net: TrainedModel, folder: Path, form: str = "onnx", images: Sequence[Tensor] = ()) -> float:
    """Write a net and its preprocessing into a folder, once the export has given the same logits.

    Args:
        form: a key of FORMATS.
        images: uint8 (S, S, 3) of the net's resized_size, to compare on, besides random ones.
    Returns:
        The largest difference of two logits, as a share of the largest logit.
    Raises:
        UserError: the difference is not negligible, or onnx is not installed, or the folder has other files of the
            same names. Nothing is written then.
    """
    if form == "onnx":
        _need_onnx()
    name = FORMATS[form]
    names = (name, "README.md", "config.yaml", "mean.npy")
    if (found := [other for other in names if (folder / other).is_file()]) and not (folder / ABOUT).exists():
        raise ConfigError(f"{folder} holds a {found[0]} that no export wrote: give the export a folder of its own")
    plain = _plain(net)
    size = net.resized_size
    random = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=augment.stream(1))
    squares = torch.stack([*random, *images])
    card = model_card(net, name)  # which reads the run's files: if one is damaged, that is told before the work
    description = json.dumps(preprocessing(net), indent=1)
    with ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        part = stack.enter_context(files.atomic_path(folder / name))
        if form == "onnx":
            _write_onnx(plain, part, description)
            logits = run_onnx(part, centre_pixels(net, squares))
        else:
            state = plain.net.state_dict()
            if form == "torch":
                checkpoint.write(state, part)
            else:
                part.write_bytes(to_safetensors(state))
            logits = _run_torch(plain, part, squares)
        expected = plain.logits(squares)[:, 0].numpy()
        difference = float(np.abs(logits - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
        if not difference <= TOLERANCE:
            raise UserError(
                f"the export's logits differ from the net's by {difference:.1e} of the largest, more than "
                f"{TOLERANCE:g}: nothing is written; try other releases of torch, onnxscript and onnxruntime"
            )
        mean = stack.enter_context(files.atomic_path(folder / "mean.npy"))  # now: a full disk names the innermost
        with mean.open("wb") as file:
            np.save(file, net.mean.cpu().numpy())
        files.write(folder / ABOUT, description)
    config = as_dict(net.cfg)
    config["data"]["root"] = None  # a place on this machine
    files.write(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    files.write(folder / "README.md", card)
    return difference


def centre_pixels(net: TrainedModel, squares: Tensor) -> np.ndarray:
    """Return the centres of squares as the ONNX net takes them: uint8 (n, S, S, 3) -> float32 (n, 3, H, W), 0..255."""
    return augment.centre_crop(squares, net.cfg.data.input_size).permute(0, 3, 1, 2).float().contiguous().numpy()


def run_onnx(file: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the logits that onnxruntime computes from an exported net, float32 (n, classes)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixels": pixels})
    return np.asarray(logits)


def preprocessing(net: TrainedModel) -> dict[str, Any]:
    """Return the content of preprocessing.json: how an image becomes the input of either file, and what comes out."""
    d = net.cfg.data
    applied = "net.onnx does it; net.safetensors and net.pt expect (pixels - mean) / scale"
    return {
        "net": net.cfg.model.name,
        "input": {"shape": ["images", 3, d.input_size, d.input_size], "dtype": "float32", "colours": "RGB"},
        "resize": {"shorter_side": d.resized_size, "squares": d.squares.name, "how": HOW[d.squares]},
        "crop": {"size": d.input_size, "where": "centre; of an odd margin one pixel more is left below and right"},
        "mean": {"file": "mean.npy", "shape": list(net.mean.shape), "unit": "RGB of 0..255", "applied": applied},
        "scale": {"value": d.pixel_scale, "applied": applied},
        "views": "one, the centre; for ten, average the softmax over the four corners of the resized image's central "
        "square, its centre, and their mirror images",
        "output": {"what": "logits, one for each class; softmax makes them probabilities"},
        "classes": net.classes,
        "model": as_dict(net.cfg)["model"],
    }


def _plain(net: TrainedModel) -> TrainedModel:
    """Return a copy on the CPU, in float32 and in contiguous memory format."""
    layers = copy.deepcopy(net.net).cpu().float().to(memory_format=torch.contiguous_format)
    return replace(net, net=layers.eval(), mean=net.mean.cpu())


def _need_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: ONNX needs pip install onnx onnxruntime onnxscript") from error


def _write_onnx(net: TrainedModel, file: Path, description: str) -> None:
    example = torch.zeros(2, 3, net.cfg.data.input_size, net.cfg.data.input_size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        program = torch.onnx.export(
            Centred(net), (example,), dynamo=True, verbose=False, opset_version=OPSET,
            input_names=["pixels"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("images")},),
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props["preprocessing"] = description
    program.save(file, external_data=False)


def _run_torch(net: TrainedModel, file: Path, squares: Tensor) -> np.ndarray:
    """Build a net anew with the weights of a file, and return its logits."""
    fresh = build_net(net.cfg.model, net.cfg.data.input_size, seed=0).eval()
    fresh.load_state_dict(load_state(file))
    return replace(net, net=fresh).logits(squares)[:, 0].numpy()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", metavar="RUN", help=f"a run folder, a folder of one run, a checkpoint, {WEIGHTS_WORDS}")
    add("--mean", metavar="FILE", type=Path, help="Caffe's mean image (.binaryproto), for its weights")
    add("--format", choices=FORMATS, default="onnx", help="format of the weights (default: %(default)s)")
    add("--out", metavar="FOLDER", type=Path, help="folder to write (default: export/ in the run folder)")
    images = "images to compare the export on, besides random ones: files or folders"
    add("--images", metavar="IMAGE", nargs="+", default=[], help=images)
    return parser


def main() -> None:
    """Run the command. Exit code 0: written and compared; 1: a mistake, or logits that differ, in one sentence."""
    start_command()
    arguments = make_parser().parse_args()
    with exit_on_error(arguments.out or f"{arguments.run}/export"):
        net = load(arguments.run, mean=arguments.mean)
        folder = arguments.out or (net.run.folder / "export" if net.run else None)
        if folder is None:
            raise ConfigError(f"{net.name} is not the net of a run: say with --out where to write it")
        squares = read_squares(arguments.images, net)
        difference = export(net, folder, arguments.format, squares)
        print(visible(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"))
        print(f"logits as the net's, to {difference:.1e} of the largest, on {3 + len(squares)} images")


def read_squares(words: list[str], net: TrainedModel) -> list[Tensor]:
    """Read the first 64 images that the command names: uint8 (S, S, 3) each.

    Raises:
        ConfigError: one of them cannot be read.
    """
    problems: list[str] = []
    names = find_images(words, problems.append)[:64]
    squares = [
        square
        for _, square in ImageFiles(names, net.resized_size, problems.append, net.squares).read(range(len(names)))
    ]
    if problems:
        raise ConfigError(problems[0])
    return squares


if __name__ == "__main__":
    main()
