"""Show the net of a configuration as a table, without building it.

    python -m alexnet_pl.describe model=released_2012 model.num_classes=1000
    python -m alexnet_pl.describe experiment=alexnet trainer=towers     with memory and traffic of each device

It takes the same GROUP=CHOICE and KEY=VALUE as alexnet_pl.train.
"""

from __future__ import annotations

import argparse

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from alexnet_pl import compose
from alexnet_pl.config.choices import Activation, Dropout, Init, LrnAlphaConvention
from alexnet_pl.config.schema import Config, Model
from alexnet_pl.console import exit_on_error, start_command
from alexnet_pl.data.length import length_summary, training_images
from alexnet_pl.model.architectures import Conv
from alexnet_pl.model.specs import (
    SPATIAL_ALPHA,
    SPATIAL_BETA,
    SPATIAL_K,
    SPATIAL_SIZE,
    LayerSpec,
    activation_bytes,
    layer_specs,
    notes,
)
from alexnet_pl.parallel.memory import sharing_summary


def show(cfg: Config, console: Console | None = None) -> None:
    """Print shapes, parameters, multiply-adds, traffic between towers, initial weights, memory, and traffic."""
    m, size = cfg.model, cfg.data.input_size
    plan = layer_specs(m, size)
    two = m.towers == 2
    table = Table(title=f"{m.name}: {'two towers' if two else 'one tower'}, images 3x{size}x{size}", box=box.SIMPLE)
    for title in ("layer", "what it does", "output"):
        table.add_column(title)
    for title in ("parameters", "multiply-adds", *(["from other tower"] if two else [])):
        table.add_column(title, justify="right")
    table.add_column("initial weights")
    for layer in plan:
        output = "x".join(map(str, layer.outputs)).removesuffix("x1x1")
        costs = [f"{layer.parameters:,}", f"{layer.macs / 1e6:,.2f} M"] if layer.parameters else ["", ""]
        costs += [f"{layer.crossing:,}" if layer.crossing else ""] if two else []
        initial = init_text(m, layer) if layer.parameters else ""
        table.add_row(
            layer.name, layer_text(m, layer), output, *costs, initial, style=None if layer.parameters else "dim"
        )
    parameters, macs = sum(s.parameters for s in plan), sum(s.macs for s in plan)
    table.add_section()
    crossing = [f"{sum(s.crossing for s in plan):,}"] if two else []
    table.add_row("total", "", "", f"{parameters:,}", f"{macs / 1e6:,.2f} M", *crossing, "", style="bold")
    console = console or Console(highlight=False)
    natural = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.width = max(console.width, natural)  # a line that the terminal wraps is better than squeezed columns
    console.print(table)
    for note in notes(m, plan):
        console.print(f"note: {note}", soft_wrap=True)
    for line in (sharing_summary(cfg) or single_device_summary(cfg), length_summary(cfg, training_images(cfg.data))):
        if line:
            console.print(line, soft_wrap=True)


def single_device_summary(cfg: Config) -> str:
    """Return the memory of a run on one device, in words."""
    plan, batch_size = layer_specs(cfg.model, cfg.data.input_size), cfg.data.batch_size
    image = activation_bytes(cfg.model, plan)
    return (
        f"memory in fp32: {3 * 4 * sum(s.parameters for s in plan) / 1e6:,.0f} MB for weights, gradients and "
        f"velocities; {image / 1e6:,.2f} MB kept per image for the backward pass, "
        f"{image * batch_size / 1e6:,.0f} MB at data.batch_size={batch_size}"
    )


def layer_text(m: Model, layer: LayerSpec) -> str:
    """Return what a layer does, in words."""
    match layer.kind:
        case "pad":
            return f"zeros: {layer.overhang} rows below, {layer.overhang} columns to the right"
        case "conv" | "local":
            assert isinstance(layer.row, Conv)
            words = [f"{layer.size}x{layer.size} kernels"]
            if layer.stride > 1:
                words.append(f"stride {layer.stride}")
            if layer.padding:
                words.append(f"padding {layer.padding}")
            if layer.kind == "local":
                words.append("other weights at every place")
            if m.towers == 2:
                words.append("own tower" if layer.groups == 2 else "both towers" if layer.crossing else "the image")
            return ", ".join(words)
        case "full":
            return "fully connected" + (
                ", own tower" if layer.groups == 2 else ", both towers" if layer.crossing else ""
            )
        case "act":
            return str(m.activation)
        case "lrn":
            by = f"/{m.lrn_size}" if m.lrn_alpha_convention is LrnAlphaConvention.code else ""
            where = "" if m.towers == 1 else ", within a tower" if layer.groups == 2 else ", across the towers"
            return f"LRN n={m.lrn_size} k={m.lrn_k:g} alpha={m.lrn_alpha:g}{by} beta={m.lrn_beta:g}{where}"
        case "spatial":
            places = SPATIAL_SIZE**2
            alpha = f"{SPATIAL_ALPHA * places:g}/{places}"
            return f"LRN over {SPATIAL_SIZE}x{SPATIAL_SIZE} places k={SPATIAL_K} alpha={alpha} beta={SPATIAL_BETA:g}"
        case "max" | "avg":
            overlap = "overlapping" if layer.size > layer.stride else "plain"
            return f"{layer.kind} pooling {layer.size}x{layer.size}, stride {layer.stride} ({overlap})"
        case "dropout":
            return f"dropout {m.dropout_rate:g}, " + ("mask only" if m.dropout is Dropout.mask else "inverted")


def init_text(m: Model, layer: LayerSpec) -> str:
    """Return how a layer's weights are initialised, in words."""
    match m.init:
        case Init.gaussian:
            return f"std {layer.row.std:g}, bias {layer.row.bias:g}"
        case Init.fan_in:
            return f"by fan-in ({2 if m.activation is Activation.relu else 1}/n), bias 0"
        case Init.torch:
            return "uniform, torch's"


def main() -> None:
    """Run the command. Exit code 0: the table was shown; 1: a mistake, in one sentence."""
    start_command()
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.describe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    overrides = "GROUP=CHOICE or KEY=VALUE, as for python -m alexnet_pl.train"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides)
    arguments = parser.parse_args()
    with exit_on_error():
        cfg = compose(*arguments.overrides)
        show(cfg)


if __name__ == "__main__":
    main()
