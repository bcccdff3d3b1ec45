"""A run as dataclasses: every key, its type, its default, its meaning, and the checks made before any work.

`conf/<group>/<choice>.yaml` fills one of these classes, Hydra composes the choices, and `check` turns the result
into a `Config`. A mistake becomes a `ConfigError`: one sentence that names the key and the nearest valid choice.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_pl.errors import ConfigError

# ------------------------------------------------------------------------------------------------ choices

Net = Enum("Net", "convnet")
Activation = Enum("Activation", "relu tanh sigmoid")
Init = Enum("Init", "released_2012 fan_in")
DataSet = Enum("DataSet", "shapes cifar10")
LoggerName = Enum("LoggerName", "wandb csv none")
WandbMode = Enum("WandbMode", "offline online disabled")


# ------------------------------------------------------------------------------------------------ groups


@dataclass
class Model:
    """conf/model: the net, as a layer table of model.py."""

    name: Net = MISSING
    """the layer table: convnet is Figure 1's four-layer CIFAR-10 net"""
    activation: Activation = Activation.relu
    """the nonlinearity after every hidden layer"""
    init: Init = Init.released_2012
    """released_2012: each layer's own small Gaussian; fan_in: Kaiming for relu, LeCun for tanh and sigmoid"""
    num_classes: int = MISSING
    """outputs of the last layer"""
    channels_last: bool = True
    """store activations as NHWC: the same numbers, about 1.8 times as fast on CPU"""


@dataclass
class Data:
    """conf/data: the pictures and what is done to them on their way into the net."""

    name: DataSet = MISSING
    """shapes: generated pictures, nothing to download; cifar10: 50,000 + 10,000 photographs"""
    root: str | None = None
    """folder of the data set (cifar10: the hub's Parquet files, or the pickles of the original release)"""
    download: bool = False
    """let torchvision download the set into root (cifar10, 170 MB)"""
    num_classes: int = MISSING
    """classes in the set"""
    batch_size: int = 128
    """pictures per step over all devices"""
    scale: float = 1.0
    """pixels are (0..255 minus the mean image) divided by this: 1 as in 2012, 64 for about unit size"""
    crop: int | None = None
    """train on random squares of this many pixels, test on the centre one (null: whole pictures)"""
    flip: bool = False
    """mirror each training picture with probability one half"""


@dataclass
class Optim:
    """conf/optim: the 2012 update rule, v <- momentum v - lr (weight_decay w + gradient), w <- w + v."""

    lr: float = MISSING
    """learning rate of the weights"""
    momentum: float = 0.9
    """share of the velocity kept from step to step"""
    weight_decay: float = 0.0
    """decay of the weights; biases have none, as in 2012"""
    bias_lr_factor: float = 2.0
    """learning rate of the biases over that of the weights"""


@dataclass
class Trainer:
    """conf/trainer: Lightning's Trainer arguments by name; null leaves Lightning's default."""

    accelerator: str | None = None
    """auto, cpu, gpu, mps"""
    strategy: str | None = None
    """how Lightning runs the model"""
    devices: Any = None
    """how many devices; this version trains on one"""
    num_nodes: int | None = None
    """machines"""
    precision: str | None = None
    """32-true, bf16-mixed, 16-mixed, bf16-true, ..."""
    max_epochs: int | None = None
    """stop after this many epochs"""
    min_epochs: int | None = None
    """do not stop before"""
    max_steps: int | None = None
    """stop after this many updates"""
    min_steps: int | None = None
    """do not stop before"""
    max_time: str | None = None
    """stop after this time, DD:HH:MM:SS"""
    fast_dev_run: Any = None
    """run this many batches of training and validation, to see that everything works"""
    limit_train_batches: Any = None
    """training batches per epoch: a number, or a share of the set"""
    limit_val_batches: Any = None
    """validation batches, likewise"""
    limit_test_batches: Any = None
    """test batches, likewise"""
    limit_predict_batches: Any = None
    """prediction batches, likewise"""
    overfit_batches: Any = None
    """train and validate on these few batches only"""
    val_check_interval: Any = None
    """validate every so many batches, or after this share of an epoch"""
    check_val_every_n_epoch: int | None = None
    """validate every so many epochs"""
    num_sanity_val_steps: int | None = None
    """validation batches tried before training"""
    log_every_n_steps: int | None = None
    """Lightning's own logging interval; our metrics come by `window`"""
    enable_checkpointing: bool | None = None
    """false keeps no checkpoint: the run cannot be resumed"""
    enable_progress_bar: bool | None = None
    """false shows nothing while training"""
    enable_model_summary: bool | None = None
    """print Lightning's table of layers"""
    enable_autolog_hparams: bool | None = None
    """Lightning's own logging of hyperparameters"""
    accumulate_grad_batches: int | None = None
    """batches per update"""
    gradient_clip_val: float | None = None
    """clip the gradient at this value"""
    gradient_clip_algorithm: str | None = None
    """norm or value"""
    deterministic: Any = None
    """true: deterministic algorithms only; warn: where they exist"""
    benchmark: bool | None = None
    """let cuDNN time its algorithms"""
    inference_mode: bool | None = None
    """evaluate under inference_mode rather than no_grad"""
    use_distributed_sampler: bool | None = None
    """let Lightning wrap samplers"""
    profiler: str | None = None
    """simple, advanced, pytorch"""
    detect_anomaly: bool | None = None
    """autograd's anomaly detection"""
    barebones: bool | None = None
    """Lightning's bare loop, for measuring overhead"""
    sync_batchnorm: bool | None = None
    """synchronise batch norm over devices"""
    reload_dataloaders_every_n_epochs: int | None = None
    """make the loaders anew"""
    default_root_dir: str | None = None
    """where Lightning writes what has no place of its own"""


@dataclass
class Logger:
    """conf/logger: where metrics go besides the terminal; the run folder keeps metrics.csv unless name=none."""

    name: LoggerName = MISSING
    """wandb: metrics.csv and Weights & Biases; csv: metrics.csv; none: nothing (the report then has no curve)"""
    mode: WandbMode = WandbMode.offline
    """offline writes files to sync later, with no account and no network; online sends; disabled is csv"""
    project: str = "alexnet_pl"
    """W&B project"""
    entity: str | None = None
    """W&B user or team"""
    tags: list[str] = field(default_factory=list)
    """W&B tags, besides the name of the sweep, the data set and the net"""


@dataclass
class Figure:
    """How `alexnet_pl.report` draws the runs of one folder; read back from the runs."""

    panel: str = ""
    """the panel this run belongs to, by its title"""
    compare: str = "model.activation"
    """the key whose values become the lines of a panel"""
    tuned: list[str] = field(default_factory=lambda: ["optim.lr"])
    """keys that may differ between the lines of a panel; any other difference is refused"""
    target: float = 0.25
    """the training error whose crossing is timed (the paper's dashed line)"""
    published: dict[str, str] = field(default_factory=dict)
    """the paper's numbers for this panel: a line's epochs to the target, and `ratio`"""


@dataclass
class Config:
    """One run."""

    name: str = MISSING
    """folder under runs/ and group in W&B"""
    seed: int = MISSING
    """of the initial weights, the order of the pictures and the augmentation"""
    window: int = MISSING
    """pictures per point of the running training error, measured on the batches as they are trained"""
    subset: int = MISSING
    """size of the fixed training subset that is evaluated after each epoch (0: none)"""
    stop_error: float | None = None
    """stop once the running training error over an epoch is at or under this (null: train to max_epochs)"""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)
    figure: Figure = field(default_factory=Figure)


# ------------------------------------------------------------------------------------------------ checks


def nearest(word: str, choices: list[str]) -> str:
    """`did you mean ...?` with the closest of the choices, or all of them where none is close."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "choose from " + ", ".join(choices)


def keys(schema: type = Config, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of the schema with its type: {"seed": int, "model.activation": Activation, ...}."""
    out: dict[str, Any] = {}
    for name, kind in get_type_hints(schema).items():
        out |= keys(kind, f"{prefix}{name}.") if is_dataclass(kind) else {prefix + name: kind}
    return out


def schema() -> DictConfig:
    """What Hydra composes against: the groups with their types.

    `trainer` holds only what is set there, so that a printed configuration stays short; `check` knows its names.
    """
    kinds = get_type_hints(Config)
    node = OmegaConf.create(
        {f.name: kinds[f.name] if is_dataclass(kinds[f.name]) else f.default for f in fields(Config)}
    )
    node.trainer = {}
    OmegaConf.set_struct(node.trainer, False)
    return node


def check(cfg: DictConfig) -> Config:
    """Turn a composed configuration into a `Config`.

    Raises:
        ConfigError: an unknown key (also one added with +), a wrong type, a missing value, or a combination that
            cannot run. Nothing has been written and no work done by then.
    """
    known = keys()
    for key in _leaves(OmegaConf.to_container(cfg, resolve=False)):
        if key not in known and not any(key.startswith(k + ".") for k, kind in known.items() if "dict" in str(kind)):
            raise ConfigError(unknown(key))
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        run = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(run, Config)
    for sentence in _rules(run):
        raise ConfigError(sentence)
    return run


def explain(error: OmegaConfBaseException) -> str:
    """OmegaConf's several lines about one key as one sentence."""
    key = error.full_key or str(error.key or "")
    kind = keys().get(key)
    said = str(error.msg or error).split("\n")[0]
    value = said.split("'")[1] if said.count("'") > 1 else ""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"{key}={value} is not a choice: {nearest(value, list(kind.__members__))}"
    if "not in" in said and key:
        return unknown(key)
    if "issing mandatory value" in said:
        return f"{key} has no value: give one with {key}=..."
    if "could not be converted to" in said:
        return f"{key}={value} is not of type {said.split()[-1].lower()}"
    return f"{key}: {said}" if key and key not in said else said


def unknown(key: str) -> str:
    """The sentence about a key that does not exist."""
    group, dot, _ = key.partition(".")
    groups = list(get_type_hints(Config))
    near = nearest(group, groups) if group not in groups else nearest(key, [k for k in keys() if "." in k or not dot])
    return f"{key} is not a key of the configuration: {near}"


def _leaves(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict) or not node:
        return [prefix[:-1]]
    return [leaf for key, value in node.items() for leaf in _leaves(value, f"{prefix}{key}.")]


def _rules(c: Config) -> Iterator[str]:
    """What no type can say: a sentence for each rule that is broken."""
    d, o, t = c.data, c.optim, c.trainer
    if not c.name or not Path(c.name).parts[-1].strip("."):
        yield f"name={c.name!r} cannot name a folder"
    if not o.lr > 0:
        yield f"optim.lr={o.lr} must be above 0"
    if not 0 <= o.momentum < 1:
        yield f"optim.momentum={o.momentum} must be at least 0 and below 1 (2012: 0.9)"
    if o.weight_decay < 0:
        yield f"optim.weight_decay={o.weight_decay} must not be negative"
    if not o.bias_lr_factor > 0:
        yield f"optim.bias_lr_factor={o.bias_lr_factor} must be above 0 (2012: 2)"
    if d.batch_size < 1:
        yield f"data.batch_size={d.batch_size} must be at least 1"
    if not d.scale > 0:
        yield f"data.scale={d.scale} must be above 0 (1 keeps the pixels at 0..255)"
    if d.crop is not None and not 8 <= d.crop <= 32:
        yield f"data.crop={d.crop} must lie between 8 and the picture's 32 pixels"
    if d.name is DataSet.shapes and (d.root is not None or d.download):
        yield (
            f"data.root={d.root} and data.download mean nothing for data=shapes, which is generated: "
            "did you mean data=cifar10?"
        )
    if d.name is DataSet.cifar10 and not d.download and not (d.root and Path(d.root).expanduser().is_dir()):
        hint = _folder_hint(d.root)
        yield f"data.root={d.root} is not a folder: {hint}give the one with CIFAR-10, or data.download=true"
    if c.model.num_classes < d.num_classes:
        yield f"model.num_classes={c.model.num_classes} is fewer than the {d.num_classes} of data={d.name.name}"
    if c.seed < 0:
        yield f"seed={c.seed} must not be negative"
    if c.window < 1:
        yield f"window={c.window} must be at least 1 picture"
    if c.subset < 0:
        yield f"subset={c.subset} must not be negative (0 evaluates no training subset)"
    if c.stop_error is not None and not 0 < c.stop_error < 1:
        yield f"stop_error={c.stop_error} is a share of wrong answers: it must lie between 0 and 1"
    if not 0 < c.figure.target < 1:
        yield f"figure.target={c.figure.target} is a share of wrong answers: it must lie between 0 and 1"
    for key in (c.figure.compare, *c.figure.tuned):
        if key not in keys():
            yield f"figure names {key}, which is not a key: {nearest(key, list(keys()))}"
    if all(limit is None for limit in (t.max_epochs, t.max_steps, t.max_time, t.fast_dev_run)):
        yield "training would never end: set trainer.max_epochs, trainer.max_steps or trainer.max_time"
    if str(t.devices) not in ("1", "None") or t.num_nodes not in (1, None):
        yield f"trainer.devices={t.devices} on {t.num_nodes or 1} nodes: this version trains on one device"
    if c.logger.name is LoggerName.wandb and c.logger.mode is WandbMode.online and not wandb_key():
        yield (
            "logger.mode=online needs a W&B key and none was found: run `wandb login`, set WANDB_API_KEY, "
            "or keep logger.mode=offline and `wandb sync` later"
        )


def _folder_hint(root: str | None) -> str:
    """`did you mean ...? ` where a folder beside the wrong one has a similar name."""
    parent = Path(root or ".").expanduser().parent
    near = [p.name for p in parent.iterdir() if p.is_dir()] if root and parent.is_dir() else []
    close = difflib.get_close_matches(Path(root or "").name, near, n=1)
    return f"did you mean {parent / close[0]}? Else " if close else ""


def wandb_key() -> bool:
    """Whether a W&B key is at hand, in the environment or where `wandb login` keeps it; asks no one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc_file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    host = os.environ.get("WANDB_BASE_URL", "api.wandb.ai").split("//")[-1].split("/")[0].split(":")[0]
    return netrc_file.is_file() and host in netrc_file.read_text(errors="replace").split()


# ------------------------------------------------------------------------------------------------ resolvers


def lookup(choice: str, table: dict[str, Any]) -> Any:
    """`${lookup:${model.activation},{relu:0.002,tanh:0.008}}`: the value that belongs to a choice."""
    name = choice.name if isinstance(choice, Enum) else str(choice)
    if name not in table:
        raise ConfigError(f"no value is given for {name}, only for {', '.join(table)}: set the key itself")
    return table[name]


OmegaConf.register_new_resolver("lookup", lookup, replace=True)


def as_dict(cfg: Config) -> dict[str, Any]:
    """Plain dicts, lists, numbers and strings: what run folders, checkpoints and W&B store."""
    plain = OmegaConf.to_container(OmegaConf.structured(cfg), resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}
