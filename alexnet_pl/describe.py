"""`--describe`: the net of a configuration as a table, before any of it exists.

python -m alexnet_pl.train model=released_2012 model.num_classes=1000 --describe
"""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from alexnet_pl import store
from alexnet_pl.config import Config, Data, DataSet, Dropout, Init, LrnScale, Model
from alexnet_pl.layouts import layout, memory, precision, sent
from alexnet_pl.table import Conv, Step, kept, steps


def show(cfg: Config, console: Console | None = None) -> None:
    """Print shapes, parameters, multiply-adds, what crosses the towers, initial weights, memory, and what is sent."""
    m, size = cfg.model, cfg.data.image_size
    plan = steps(m, size)
    two = m.towers == 2
    table = Table(title=f"{m.name}: {'two towers' if two else 'one tower'}, pictures 3x{size}x{size}", box=box.SIMPLE)
    for title in ("layer", "what it does", "output"):
        table.add_column(title)
    for title in ("parameters", "multiply-adds", *(["from other tower"] if two else [])):
        table.add_column(title, justify="right")
    table.add_column("initial weights")
    for step in plan:
        output = "x".join(map(str, step.outputs)).removesuffix("x1x1")
        costs = [f"{step.parameters:,}", f"{step.macs / 1e6:,.2f} M"] if step.parameters else ["", ""]
        costs += [f"{step.crossing:,}" if step.crossing else ""] if two else []
        begins = start(m, step) if step.parameters else ""
        table.add_row(step.name, what(m, step), output, *costs, begins, style=None if step.parameters else "dim")
    parameters, macs = sum(s.parameters for s in plan), sum(s.macs for s in plan)
    table.add_section()
    crossing = [f"{sum(s.crossing for s in plan):,}"] if two else []
    table.add_row("total", "", "", f"{parameters:,}", f"{macs / 1e6:,.2f} M", *crossing, "", style="bold")
    console = console or Console(highlight=False)
    natural = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.width = max(console.width, natural)  # a line that the terminal wraps is better than squeezed columns
    console.print(table)
    for line in (shared(cfg) or alone(cfg), length(cfg, training_pictures(cfg.data))):
        if line:
            console.print(line, soft_wrap=True)


def alone(cfg: Config) -> str:
    """What a run on one device keeps."""
    plan, batch_size = steps(cfg.model, cfg.data.image_size), cfg.data.batch_size
    picture = kept(cfg.model, plan)
    return (
        f"memory in fp32: {3 * 4 * sum(s.parameters for s in plan) / 1e6:,.0f} MB for weights, gradients and "
        f"velocities; {picture / 1e6:,.2f} MB kept per picture for the backward pass, "
        f"{picture * batch_size / 1e6:,.0f} MB at data.batch_size={batch_size}"
    )


def shared(cfg: Config) -> str:
    """What each device of a run on several keeps and sends; nothing for one device."""
    where, plan = layout(cfg.trainer), steps(cfg.model, cfg.data.image_size)
    if where.processes == 1:
        return ""
    weights, activations = memory(where, cfg.model, plan, cfg.data.batch_size)
    sends = sent(where, plan, cfg.data.batch_size, precision(cfg.trainer))
    return (
        f"{where.name} on {where.processes} devices: each keeps {weights / 1e6:,.0f} MB for weights, gradients and "
        f"velocities and {activations / 1e6:,.0f} MB for the backward pass (fp32), and sends {sends / 1e6:,.1f} MB "
        f"in a step of data.batch_size={cfg.data.batch_size}"
    )


def length(cfg: Config, pictures: int | None) -> str:
    """How many pictures a run is going to see, of so many in its set, in words; nothing where that is open."""
    seen = to_see(cfg, pictures)
    return f"{seen:,} pictures to see" if seen else ""


def to_see(cfg: Config, pictures: int | None) -> int | None:
    """How many pictures a run is going to see, of so many in its set; None where that is open."""
    t, batch_size = cfg.trainer, cfg.data.batch_size
    steps, epochs = t.max_steps or -1, t.max_epochs or -1
    ends = [steps * (t.accumulate_grad_batches or 1) * batch_size] if steps > 0 else []
    if epochs > 0 and pictures:
        limit = 1.0 if t.limit_train_batches is None else t.limit_train_batches
        share = limit * pictures if isinstance(limit, float) else limit * batch_size
        ends.append(epochs * min(pictures, round(share)))
    return min(ends) if ends else None


def training_pictures(d: Data) -> int | None:
    """Of a data set, as far as that is known before it is opened."""
    if d.packed:
        found = store.read(Path(d.root or "").expanduser())
        return found.pictures["train"] if found else None
    return {DataSet.shapes: 10_000, DataSet.cifar10: 50_000}[d.name]


def what(m: Model, step: Step) -> str:
    """One step in the field's words."""
    match step.kind:
        case "pad":
            return f"zeros: {step.overhang} rows below, {step.overhang} columns to the right"
        case "conv" | "local":
            assert isinstance(step.row, Conv)
            words = [f"{step.size}x{step.size} kernels", f"stride {step.stride}", f"padding {step.padding}"]
            words[1:2] = [] if step.stride == 1 else words[1:2]
            words = words if step.padding else words[:-1]
            if step.kind == "local":
                words.append("other weights at every place")
            if m.towers == 2:
                words.append("own tower" if step.groups == 2 else "both towers" if step.crossing else "the picture")
            return ", ".join(words)
        case "full":
            return "fully connected" + (", own tower" if step.groups == 2 else ", both towers" if step.crossing else "")
        case "act":
            return str(m.activation)
        case "lrn":
            by = f"/{m.lrn_size}" if m.lrn_scale is LrnScale.code else ""
            where = "" if m.towers == 1 else ", within a tower" if step.groups == 2 else ", across the towers"
            return f"LRN n={m.lrn_size} k={m.lrn_k:g} alpha={m.lrn_alpha:g}{by} beta={m.lrn_beta:g}{where}"
        case "spatial":
            return "LRN over 5x5 places k=1 alpha=0.001/25 beta=0.75"
        case "max" | "avg":
            overlap = "overlapping" if step.size > step.stride else "plain"
            return f"{step.kind} pooling {step.size}x{step.size}, stride {step.stride} ({overlap})"
        case "dropout":
            return f"dropout {m.dropout_rate:g}, " + ("mask only" if m.dropout is Dropout.mask else "inverted")


def start(m: Model, step: Step) -> str:
    """How a layer's weights start."""
    match m.init:
        case Init.gaussian:
            return f"std {step.row.std:g}, bias {step.row.bias:g}"
        case Init.fan_in:
            return "by fan-in, bias 0"
        case Init.torch:
            return "uniform, torch's"
