"""A run as dataclasses: every key, its type, its default, its meaning.

`conf/<group>/<choice>.yaml` fills one of these classes. Hydra composes the choices, and `compose.to_config` turns the
result into a `Config`. The file is long because it is one table: every key stands here, once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import cache
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from alexnet_pl.config.choices import (
    Activation,
    Arch,
    ColorNoise,
    CompileLrn,
    Conv1Padding,
    Dropout,
    DropoutAt,
    Init,
    LoggerName,
    LogModel,
    LrnAlphaConvention,
    OnDevice,
    Order,
    ParameterNames,
    Pooling,
    PretrainedLayers,
    Rule,
    Scale,
    Schedule,
    Squares,
    WandbMode,
)


# ------------------------------------------------------------------------------------------------ groups
@dataclass
class Model:
    """conf/model: the net, as a layer table of model/architectures.py."""

    name: str = MISSING
    """what the net is called, in W&B tags and messages"""
    arch: Arch = MISSING
    """the layer table in model/architectures.py; all below departs from it"""
    num_classes: int = MISSING
    """outputs of the last layer"""
    input_size: int = MISSING
    """side in pixels of the images it was made for: what data.crop_size is unless set"""
    widths: dict[str, int] = field(default_factory=dict)
    """kernels (over all towers) or units of single layers, {conv1: 48}; the others keep the table's"""
    width: float = 1.0
    """factor on the kernels and units of every layer but the last; weights start larger: signals keep their size"""
    drop_layers: list[str] = field(default_factory=list)
    """layers to leave out, [conv3]; a pooling layer above a convolution stays"""
    towers: int = 1
    """2: as over two GPUs, conv2, conv4 and conv5 see half of the maps below them; 1: everything sees everything"""
    towers_meet: list[str] | None = None
    """layers that see both towers (null: conv3, conv6, the fully connected ones, as in 2012); the last always does"""
    conv1_padding: Conv1Padding = Conv1Padding.right_bottom
    """right_bottom: zeros so that the last window fits, 3 at 224 pixels (2012); symmetric: 2 on each side; none"""
    activation: Activation = Activation.relu
    """the nonlinearity after every hidden layer; abs_tanh is |tanh(x)|"""
    order: dict[str, Order] = field(default_factory=dict)
    """what comes first after a convolution, {conv1: lrn_pool_act}; the others have act_lrn_pool"""
    pooling: Pooling = Pooling.overlapping
    """overlapping: 3x3 windows 2 apart; plain: 2x2 windows 2 apart, with paddings that keep the last grid"""
    lrn: list[str] = field(default_factory=list)
    """convolutions with local response normalisation, [conv1,conv2]; [] is off"""
    lrn_size: int = 5
    """maps in a window, odd"""
    lrn_alpha: float = 1e-4
    """factor of the sum of squares, before lrn_alpha_convention; made for pixels of 0..255"""
    lrn_beta: float = 0.75
    """the power"""
    lrn_k: float = 2.0
    """what is added to the sum; for small inputs nothing else matters"""
    lrn_alpha_convention: LrnAlphaConvention = LrnAlphaConvention.code
    """code: alpha is divided by lrn_size, as every released program does; paper: as its formula is printed"""
    lrn_across_towers: bool = False
    """windows cross from one tower's maps to the other's, as in Caffe"""
    spatial_norm: list[str] = field(default_factory=list)
    """convolutions with the unpublished normalisation over 5x5 places, after their LRN (2012: conv2)"""
    compile_lrn: CompileLrn = CompileLrn.on_gpu
    """run the normalisations through torch.compile where there is a compiler (on CPUs a step gains little)"""
    compile_net: bool = False
    """run the whole net through torch.compile in training, forward and backward; not measured on a GPU yet"""
    dropout: Dropout = Dropout.none
    """mask: zeros in training, times 1 - rate in evaluation (2012); inverted: survivors over 1 - rate in training"""
    dropout_rate: float = 0.5
    """share of the units that are zeroed"""
    dropout_at: DropoutAt = DropoutAt.outputs
    """outputs of the hidden fully connected layers (2012), or their inputs (torchvision)"""
    init: Init = Init.gaussian
    """gaussian: the table's std and bias; fan_in: Kaiming for relu, LeCun otherwise, biases 0; torch: its default"""
    std: dict[str, float] = field(default_factory=dict)
    """initial standard deviation of single layers, {conv3: 0.03}, with init=gaussian; the others keep the table's"""
    bias: dict[str, float] = field(default_factory=dict)
    """initial bias of single layers, likewise"""
    parameter_names: ParameterNames = ParameterNames.layers
    """in the state dict: conv1.weight, or features.0.weight so that torchvision's weights load"""
    channels_last: bool = True
    """store activations as NHWC: the same numbers, about 1.5 times as fast on CPU"""


LEAST_PIXELS, MOST_PIXELS = 8, 4096
"""Side of an image as a store holds it, or a net is shown it"""


@dataclass
class Data:
    """conf/data: the images and what is done to them on their way into the net."""

    kind: str = MISSING
    """shapes: generated images, nothing to download; cifar10: 50,000 + 10,000 photographs; packed: a packed dataset,
    called store, made by alexnet_pl.prepare"""
    name: str = MISSING
    """what the data set is called, in figures, tags and claims; of data=packed what its store says"""
    root: str | None = None
    """folder of the data set (packed: the store; cifar10: Hugging Face's Parquet files, or the pickles of the original
    release)"""
    download: bool = False
    """let torchvision download the set into root (cifar10, 170 MB)"""
    num_classes: int = MISSING
    """classes in the set"""
    size: int = 32
    """side of its images in pixels"""
    store: str | None = None
    """which packed store it is, wherever it lies; read from it"""
    batch_size: int = 128
    """images per step over all devices"""
    shuffle: bool = True
    """a new order in each epoch; false: one order for all epochs, as in 2012"""
    pixel_scale: float = 1.0
    """pixels are (0..255 minus the mean image) divided by this: 1 as in 2012, 64 for about unit size"""
    mean_color: list[float] | None = None
    """what is subtracted instead of the set's mean image, [123.7,116.3,103.5]: RGB of 0..255 (null: the mean image)"""
    resize: int | None = None
    """scale the images to this side first (null: as they are, or just large enough for the crop)"""
    crop_size: int | None = None
    """train on squares of this many pixels, test on the centre one (null: whole images)"""
    random_crop: bool = True
    """train on squares at random places; false: on the centre one"""
    random_flip: bool = False
    """mirror each training image with probability one half"""
    crop_chunk: int = 1
    """so many training images in a row share one place and one mirroring (2012: 32)"""
    color_noise: ColorNoise = ColorNoise.off
    """add random multiples of the principal components of the set's colours to each training image; paper: of a tenth
    of the eigenvalues, pixels taken as 0..1, as its formula says; released_2012: of a tenth of their square roots, then
    divide by 1.1: on ImageNet 2 to 13 times as strong, and what the published numbers were made with"""
    color_noise_until: int | None = None
    """so many epochs have it, the later ones not (null: all; net 145: 67)"""
    workers: int | None = None
    """threads that read ahead from a store (null: two, or where images are JPEGs one for each CPU, up to 16)"""
    on_device: OnDevice = OnDevice.if_it_fits
    """keep a store's images in the device's memory; if_it_fits: on a GPU, if they are raw and each split takes a
    quarter of the free memory at most"""

    @property
    def resized_size(self) -> int:
        """Side of an image in pixels, before it is cropped."""
        return self.resize or max(self.size, self.crop_size or 0)

    @property
    def input_size(self) -> int:
        """Side of the net's input in pixels."""
        return self.crop_size or self.resized_size

    @property
    def squares(self) -> Squares:
        """How photographs became the squares of its packed store: the last word of the store's identity says so."""
        last = (self.store or "").rpartition("-")[2]
        return Squares.__members__.get(last, Squares.centre)

    @property
    def packed(self) -> bool:
        """Whether its images come from a packed store."""
        return self.kind == "packed"


@dataclass
class LayerLr:
    """A schedule that some layers' weights have to themselves."""

    layers: list[str] = MISSING
    """whose they are"""
    milestones: list[float] = MISSING
    """when the rate of their weights changes, [67, 72]; 0 is from the start"""
    factors: list[float] = MISSING
    """what it is from then on, as a factor of lr, [0.001, 0]; 0 freezes weights and biases"""


@dataclass
class Optim:
    """conf/optim: the update rule and how its learning rates fall."""

    name: Rule = Rule.sgd_2012
    """sgd_2012: v <- momentum v - lr (weight_decay w + gradient), w <- w + v; sgd: torch's, lr outside the velocity"""
    lr: float = MISSING
    """learning rate of the weights, at the start"""
    momentum: float = 0.9
    """share of the velocity kept from step to step"""
    weight_decay: float = 0.0
    """decay of the weights"""
    layer_decay: dict[str, float] = field(default_factory=dict)
    """decay of single layers' weights, {fc10: 0.01}; the others have weight_decay"""
    decay_biases: bool = False
    """decay the biases as well (2012: not)"""
    bias_lr_mult: float = 2.0
    """learning rate of the biases over that of the weights"""
    schedule: Schedule = Schedule.epochs
    """what the cuts below are counted in: epochs, shares of the run; or plateau: cut when validation stops improving"""
    lr_milestones: list[float] = field(default_factory=list)
    """when the weights' rate changes, [25,51,79]"""
    lr_factors: list[float] = field(default_factory=list)
    """what it is from then on, as a factor of lr, [0.1,0.01,0.001]"""
    bias_lr_milestones: list[float] = field(default_factory=list)
    """when the biases' rate changes; they do not follow the weights'"""
    bias_lr_factors: list[float] = field(default_factory=list)
    """what it is from then on, as a factor of lr * bias_lr_mult"""
    layer_lr: list[LayerLr] = field(default_factory=list)
    """schedules of their own for single layers, [{layers: [conv1], milestones: [67, 72], factors: [0.001, 0]}]"""
    frozen: list[str] = field(default_factory=list)
    """layers that never train, [conv1, conv2]: of a net that starts from another's weights"""
    plateau_patience: int = 5
    """validations without a lower error before all rates are divided by ten (schedule=plateau)"""
    plateau_cuts: int = 3
    """how often they are (the paper: three times)"""


@dataclass
class Trainer:
    """conf/trainer: Lightning's Trainer arguments by name; null leaves Lightning's default."""

    accelerator: str = "auto"
    """auto: a CUDA GPU if there is one, else the CPU; cpu, gpu, mps"""
    strategy: str | None = None
    """how several devices share the work: see parallel/layouts.py. ddp (or auto): each has the whole net; towers: one
    tower each, as in 2012; owt: convolutions as in ddp, of the fully connected layers some units each"""
    devices: Any = None
    """devices on each machine, -1 for all GPUs; on CPUs, processes"""
    num_nodes: int | None = None
    """machines"""
    precision: str = "auto"
    """auto: bf16-mixed on GPUs that have it, else 32-true; 32-true, bf16-mixed, 16-mixed, 64-true, ..."""
    max_epochs: int | None = None
    """stop after this many epochs"""
    max_steps: int | None = None
    """stop after this many updates"""
    max_time: str | None = None
    """stop after this time, DD:HH:MM:SS; the same command goes on, unless this alone is the run's length"""
    limit_train_batches: Any = None
    """training batches per epoch: a number, or a share of the set"""
    limit_val_batches: Any = None
    """validation batches, likewise"""
    limit_test_batches: Any = None
    """batches of the test at the end, likewise"""
    val_check_interval: Any = None
    """validate every so many batches, or after this share of an epoch"""
    check_val_every_n_epoch: int | None = None
    """validate every so many epochs"""
    num_sanity_val_steps: int | None = None
    """validation batches tried before training"""
    enable_checkpointing: bool | None = None
    """false keeps no checkpoint: the run cannot be resumed"""
    enable_progress_bar: bool | None = None
    """false shows nothing while training"""
    accumulate_grad_batches: int | None = None
    """batches per update"""
    gradient_clip_val: float | None = None
    """clip the gradient's norm at this value"""
    deterministic: Any = None
    """true: deterministic algorithms only; warn: where they exist (cuDNN's are, unless benchmark gives that up)"""
    benchmark: bool | None = None
    """true: let cuDNN time its algorithms and take the fastest; two runs on GPUs then differ in their last bits"""
    profiler: str | None = None
    """simple, advanced, pytorch"""
    more: dict[str, Any] = field(default_factory=dict)
    """any other argument of Lightning's Trainer; typed as trainer.detect_anomaly=true"""


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
    log_model: LogModel = LogModel.none
    """keep the run's last or best checkpoint with W&B, as an artifact (see ckpt_path)"""


@dataclass
class Report:
    """How `alexnet_pl.report` draws the runs of one folder; read back from the runs."""

    panel: str = ""
    """the panel this run belongs to, by its title"""
    compare: list[str] = field(default_factory=list)
    """the keys whose values become the lines of a panel; []: what the jobs' overrides differ in, but for the seed"""
    tuned: list[str] = field(default_factory=lambda: ["optim.lr"])
    """keys that may differ between the lines of a panel besides those; any other difference is refused"""
    target: float | None = None
    """the training error whose crossing is timed, 0.25 for the paper's dashed line (null: nothing is timed)"""
    published: dict[str, str] = field(default_factory=dict)
    """the paper's numbers for this panel: a line's epochs to the target, and `ratio`"""


@dataclass
class Config:
    """One run."""

    name: str = MISSING
    """folder under runs/ and group in W&B"""
    scale: Scale = Scale.paper
    """how large: paper, small (minutes on a GPU) or smoke (seconds); smaller ones have folders of their own,
    runs/<name>_small; see conf/scale"""
    seed: int = MISSING
    """of the initial weights, the order of the images and the augmentation"""
    ckpt_path: str | None = None
    """a run folder, a checkpoint in one, or wandb:ENTITY/PROJECT/NAME:ALIAS, to start from: the same net, data and
    rule go on in a folder of their own, on other devices or for longer (null: from the beginning)"""
    pretrained: str | None = None
    """another net whose weights this one starts with: a run folder, a checkpoint, wandb:ENTITY/PROJECT/NAME:ALIAS, or
    published weights (torchvision, caffe:FILE, FILE.pth, FILE.safetensors, FILE.onnx, an exported folder); null: all
    layers start anew"""
    pretrained_layers: PretrainedLayers = PretrainedLayers.conv
    """conv: the convolutions that both nets have (2012); all: every layer of the same shape; the others start anew"""
    train_error_window: int = MISSING
    """images per point of the running training error, measured on the batches as they are trained"""
    train_eval_images: int = MISSING
    """size of the fixed training subset that is evaluated after each epoch (0: none)"""
    stop_at_train_error: float | None = None
    """stop once the running training error over an epoch is at or under this (null: train to max_epochs)"""
    test_views: int = 0
    """after training, the error on the validation set: 10 averages over ten views of each image (four corners, the
    centre, and their mirrors), 9 over a 3x3 grid without mirrors (2012's CIFAR-10), 1 takes the centre; 0: none"""
    stuck_after_steps: int = 500
    """after so many updates, say so if the loss is still that of guessing, and what may be the cause (0: never)"""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)
    report: Report = field(default_factory=Report)


def as_dict(cfg: Config) -> dict[str, Any]:
    """Return plain dicts, lists, numbers and strings: what run folders, checkpoints and W&B store."""
    return {key: _plain(value) for key, value in asdict(cfg).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.name if isinstance(value, Enum) else value


def from_dict(plain: dict[str, Any]) -> Config:
    """Return the configuration that `as_dict` made plain.

    Raises:
        OmegaConfBaseException: a key is unknown, or a value is of another type.
    """
    cfg = OmegaConf.to_object(OmegaConf.merge(_schema(), plain))
    assert isinstance(cfg, Config)
    return cfg


@cache
def _schema() -> DictConfig:
    return OmegaConf.structured(Config)
