"""Refuse before any work: values out of range, combinations that cannot run, files that are not there.

All rules are checked, and all broken ones are raised together, one sentence each.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from alexnet_pl.config.choices import ColorNoise, LoggerName, LogModel, OnDevice, WandbMode
from alexnet_pl.config.keys import is_key, key_types
from alexnet_pl.config.schema import LEAST_PIXELS, MOST_PIXELS, Config, Data, Model, Report, as_dict
from alexnet_pl.config.suggestions import suggest
from alexnet_pl.data import store
from alexnet_pl.data.datasets import SMALL_DATASETS
from alexnet_pl.errors import ConfigError
from alexnet_pl.files import expand
from alexnet_pl.jobs.optim_rules import layer_rules, optim_rules
from alexnet_pl.jobs.trainer_rules import interval_rules, trainer_rules
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.parallel import layouts
from alexnet_pl.parallel.memory import memory_rules
from alexnet_pl.runs import wandb_server
from alexnet_pl.runs.naming import WANDB_NAME, WANDB_TAG, flatten_config

LARGEST_FLOAT = 3.4e38  # of single precision
LARGEST_INT = 2**63 - 1
MOST_WORKERS = 256


def check(cfg: Config, to_run: bool = True, here: bool = True) -> None:
    """Refuse a configuration that cannot run, before anything is written.

    Args:
        to_run: whether to check the data and W&B's key as well.
        here: whether to check the devices as well; not for a run on another machine.
    Raises:
        ConfigError: a sentence for each mistake.
    """
    if mistakes := list(_number_rules(cfg)):  # which no other rule could compare with anything
        raise ConfigError(*mistakes)
    mistakes = [*_run_rules(cfg), *optim_rules(cfg), *_model_rules(cfg.model)]
    mistakes += [*_data_rules(cfg.data), *_report_rules(cfg.report), *_logger_rules(cfg), *trainer_rules(cfg)]
    if not mistakes:  # else there may be no such net
        mistakes += _net_rules(cfg)
    if to_run:
        mistakes += _machine_rules(cfg)
    if to_run and here:
        mistakes += layouts.device_rules(cfg.trainer)
        mistakes += [] if mistakes else memory_rules(cfg)
    if mistakes:
        raise ConfigError(*mistakes)


def check_device(cfg: Config) -> None:
    """Refuse to measure a run for which this machine has no device, or too little memory.

    Raises:
        ConfigError: a sentence for each mistake.
    """
    one = replace(cfg, trainer=replace(cfg.trainer, devices=1, num_nodes=1))
    if mistakes := list(layouts.device_rules(one.trainer)) or list(memory_rules(one)):
        raise ConfigError(*mistakes)


def _number_rules(c: Config) -> Iterator[str]:
    """Yield a sentence for each number that arithmetic cannot use, and each text that no file or library can use."""
    own = [number for each in c.optim.layer_lr for number in (*each.milestones, *each.factors)]
    for key, value in (flatten_config(as_dict(c)) | {"optim.layer_lr": own}).items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, str) and "\0" in number:
                yield f"{key} holds a zero byte, which no name and no path has"
            if isinstance(number, list | dict):
                yield f"{key}={value} must be a plain list, without others inside"
            if isinstance(number, float) and not abs(number) <= LARGEST_FLOAT:
                yield f"{key}={number} must be a finite number, of at most {LARGEST_FLOAT:g} in size"
            if isinstance(number, int) and not abs(number) <= LARGEST_INT:
                yield f"{key}={number} must be at most {LARGEST_INT} in size"


def _run_rules(c: Config) -> Iterator[str]:
    """Yield a sentence for each rule that is broken."""
    d = c.data
    if not Path(c.name).name or ".." in Path(c.name).parts or Path(c.name).is_absolute():
        yield f"name={c.name!r} must name a folder under runs/"
    for key in ("ckpt_path", "pretrained"):
        if getattr(c, key) == "":
            yield f"{key} is empty, perhaps by an unset variable: name a run or weights, or set {key}=null"
    if c.seed < 0:
        yield f"seed={c.seed} must not be negative"
    if c.train_error_window < 1:
        yield f"train_error_window={c.train_error_window} must be at least 1 image"
    if c.test_views not in (0, 1, 9, 10):
        yield (
            f"test_views={c.test_views} must be 10 (corners, centre and their mirrors), 9 (a 3x3 grid), 1 (the centre) "
            "or 0 (no test)"
        )
    if c.test_views in (9, 10) and d.input_size == d.resized_size:
        yield (
            f"test_views={c.test_views} needs images larger than their crops, both have {d.input_size} pixels: "
            "set data.resize, or test_views=1"
        )
    if c.stuck_after_steps < 0:
        yield f"stuck_after_steps={c.stuck_after_steps} must not be negative (0 never looks)"
    if c.train_eval_images < 0:
        yield f"train_eval_images={c.train_eval_images} must not be negative (0 evaluates no training subset)"
    if c.stop_at_train_error is not None and not 0 < c.stop_at_train_error < 1:
        yield f"stop_at_train_error={c.stop_at_train_error} is a share of wrong answers: it must lie between 0 and 1"
    if c.model.num_classes < d.num_classes:
        yield f"model.num_classes={c.model.num_classes} is fewer than the {d.num_classes} of data.name={d.name}"


def _report_rules(r: Report) -> Iterator[str]:
    if r.target is not None and not 0 < r.target < 1:
        yield f"report.target={r.target} is a share of wrong answers: it must lie between 0 and 1"
    for key in (*r.compare, *r.tuned):
        if not is_key(key):
            yield f"report names {key}, which is not a key: {suggest(key, list(key_types()))}"


def _has_wandb(c: Config) -> bool:
    return c.logger.name is LoggerName.wandb and c.logger.mode is not WandbMode.disabled


def _logger_rules(c: Config) -> Iterator[str]:
    """Yield a sentence for each name that W&B would refuse, and for an artifact of a run that keeps no checkpoint."""
    given, t = c.logger, c.trainer
    for key in ("project", "entity"):
        name = getattr(given, key)
        if name is not None and (not 0 < len(name) <= WANDB_NAME or re.search(r"[/\\#?%:\r\n]", name)):
            yield f"logger.{key}={name} must have 1 to {WANDB_NAME} characters, none of them among /\\#?%:"
    for tag in given.tags:
        if not 0 < len(tag) <= WANDB_TAG:
            yield f"logger.tags has {tag!r} of {len(tag)} characters: a tag of W&B's has 1 to {WANDB_TAG}"
    if given.log_model is not LogModel.none:
        if not _has_wandb(c):
            yield f"logger.log_model={given.log_model} keeps a checkpoint with W&B: it needs logger=wandb"
        if t.enable_checkpointing is False:
            yield f"logger.log_model={given.log_model} has nothing to keep with trainer.enable_checkpointing=false"
        if given.log_model is LogModel.best and t.limit_val_batches == 0:
            yield "logger.log_model=best needs a validation error: use last, or trainer.limit_val_batches above 0"


def _net_rules(c: Config) -> Iterator[str]:
    """Yield why the net cannot be, or cannot run on these devices."""
    try:
        plan = layer_specs(c.model, c.data.input_size)
    except ConfigError as error:
        yield str(error)
        return
    layers = [layer.name for layer in plan if layer.parameters]
    yield from layer_rules(c.optim, layers)
    for layer in plan:
        if layer.kind == "lrn" and c.model.lrn_size > 2 * layer.outputs[0]:
            yield f"model.lrn_size={c.model.lrn_size} is more than twice the {layer.outputs[0]} maps of {layer.name}"
    yield from layouts.layout_rules(c, plan)
    yield from interval_rules(c)


def _data_rules(d: Data) -> Iterator[str]:
    if d.batch_size < 1:
        yield f"data.batch_size={d.batch_size} must be at least 1"
    if not d.pixel_scale > 0:
        yield f"data.pixel_scale={d.pixel_scale} must be above 0 (1 keeps the pixels at 0..255)"
    if d.mean_color is not None and (len(d.mean_color) != 3 or not all(0 <= value <= 255 for value in d.mean_color)):
        yield f"data.mean_color={d.mean_color} must be three numbers of 0 to 255: red, green and blue"
    if not LEAST_PIXELS <= d.resized_size <= MOST_PIXELS:
        key = "resize" if d.resize is not None else "crop_size"
        yield f"data.{key}={d.resize or d.crop_size} must lie between {LEAST_PIXELS} and {MOST_PIXELS} pixels"
    if d.crop_size is not None and not LEAST_PIXELS <= d.crop_size <= d.resized_size:
        yield (
            f"data.crop_size={d.crop_size} must lie between {LEAST_PIXELS} and the image's {d.resized_size} pixels "
            "(data.resize sets them)"
        )
    if d.crop_chunk < 1:
        yield f"data.crop_chunk={d.crop_chunk} must be at least 1 image (2012: 32)"
    if d.color_noise_until is not None and (d.color_noise is ColorNoise.off or d.color_noise_until < 1):
        yield f"data.color_noise_until={d.color_noise_until} must be at least 1, and needs a data.color_noise to end"
    if d.workers is not None and (not 1 <= d.workers <= MOST_WORKERS or not d.packed):
        most = f"at least 1 and at most {MOST_WORKERS}"
        yield f"data.workers={d.workers} must be {most}, and works only with a packed store (data=imagenet)"
    if d.on_device is not OnDevice.if_it_fits and not d.packed:
        yield f"data.on_device={d.on_device} is for packed stores: the images of data={d.kind} always lie on the device"
    if d.packed:
        if d.download:
            yield f"data.download fetches CIFAR-10 only: for data.name={d.name} prepare a store (alexnet_pl.prepare)"
        return
    if d.kind not in SMALL_DATASETS:
        yield f"data.kind={d.kind} is not a choice: {suggest(d.kind, [*SMALL_DATASETS, 'packed'])}"
        return
    small = SMALL_DATASETS[d.kind]
    if small.generated and (d.root is not None or d.download):
        yield (
            f"data.root={d.root} and data.download mean nothing for data={d.kind}, which is generated: "
            "did you mean data=cifar10?"
        )
    if d.size != small.size or d.store:
        yield (
            f"data.size={d.size} and data.store={d.store} come from a packed store, and data={d.kind} is none: it has "
            f"{small.size} pixels"
        )
    if d.num_classes != len(small.classes):
        yield f"data.num_classes={d.num_classes}, but data={d.kind} has {len(small.classes)}: leave it out"


def _machine_rules(c: Config) -> Iterator[str]:
    """Yield a sentence for everything that this machine lacks for the run."""
    d = c.data
    small = SMALL_DATASETS.get(d.kind)
    if small and not small.generated and not d.download and not (d.root and expand(d.root).is_dir()):
        download = ", or set data.download=true" if small.downloads else ""
        yield f"data.root={d.root} is not a folder: {_folder_hint(d.root)}give the folder of {d.name}{download}"
    if d.packed:
        yield from _store_rules(c)
    if c.logger.name is LoggerName.tensorboard and not find_spec("tensorboard"):
        yield "logger=tensorboard needs the package tensorboard: pip install tensorboard"
    if c.model.compile_net:
        from alexnet_pl.model.lrn import lacking_to_compile  # it imports torch

        for what in lacking_to_compile(layouts.resolve_accelerator(c.trainer)):
            yield f"model.compile_net=true needs {what}, which is not here: install it, or set it to false"
    if _has_wandb(c):
        try:
            wandb_server.address()  # a client that is offline minds it as well
            if c.logger.mode is WandbMode.online and not wandb_server.key():
                yield (
                    "logger.mode=online needs a W&B key and none was found: run `wandb login`, set WANDB_API_KEY, "
                    "or keep logger.mode=offline and send the run later with python -m alexnet_pl.sync"
                )
        except ConfigError as error:
            yield str(error)


def _store_rules(c: Config) -> Iterator[str]:
    """Yield a sentence for everything that the packed dataset lacks for the run."""
    d = c.data
    if not d.root:
        yield f"data.name={d.name} needs a packed dataset: data.root=STORE, made once by python -m alexnet_pl.prepare"
        return
    try:
        found = store.require(expand(d.root), "data.root=")
        found.check_files("train")
    except ConfigError as error:
        yield str(error)
        return
    its = {"num_classes": len(found.classes), "size": found.plan.size, "store": found.plan.identity}
    for key, there in its.items():
        if getattr(d, key) != there:
            yield f"data.{key}={getattr(d, key)}, but the store in data.root={d.root} has {there}: leave it out"
    if not found.images.get("val") and (c.trainer.limit_val_batches != 0 or c.test_views):
        yield (
            f"data.root={d.root} holds no validation images: prepare it with --hold-out 0.1 (or set "
            "trainer.limit_val_batches=0 and test_views=0, with an optim.schedule other than plateau)"
        )


def _model_rules(m: Model) -> Iterator[str]:
    if m.input_size < 8:
        yield f"model.input_size={m.input_size} must be at least 8 pixels"
    if m.towers not in (1, 2):
        yield f"model.towers={m.towers} must be 1 or 2"
    if not m.width > 0:
        yield f"model.width={m.width} must be above 0 (1 is the net's own size)"
    for key in ("widths", "std"):
        for layer, value in getattr(m, key).items():
            if not isinstance(value, int | float) or not value > 0:
                yield f"model.{key}.{layer}={value} must be a number above 0"
    if m.lrn_size < 3 or m.lrn_size % 2 == 0:
        yield f"model.lrn_size={m.lrn_size} must be odd and at least 3, so that a unit is the middle of its window"
    for key in ("lrn_alpha", "lrn_beta", "lrn_k"):
        if not getattr(m, key) > 0:
            yield f"model.{key}={getattr(m, key)} must be above 0 (model.lrn=[] is no normalisation)"
    if not 0 < m.dropout_rate < 1:
        yield f"model.dropout_rate={m.dropout_rate} must lie between 0 and 1 (model.dropout=none is no dropout)"


def _folder_hint(root: str | None) -> str:
    """Return `did you mean ...? ` if a folder beside the wrong one has a similar name; else nothing."""
    parent = expand(root or ".").parent
    near = [p.name for p in parent.iterdir() if p.is_dir()] if root and parent.is_dir() else []
    close = difflib.get_close_matches(Path(root or "").name, near, n=1)
    return f"did you mean {parent / close[0]}? Else " if close else ""
