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
    """Name of the net, in W&B tags and messages."""
    arch: Arch = MISSING
    """Layer table in model/architectures.py. The keys below depart from it."""
    num_classes: int = MISSING
    """Outputs of the last layer."""
    input_size: int = MISSING
    """Side in pixels of the images that the net was made for. data.crop_size follows it unless set."""
    widths: dict[str, int] = field(default_factory=dict)
    """Kernels (over all towers) or units of single layers, {conv1: 48}. Other layers keep the table's."""
    width: float = 1.0
    """Factor on the kernels and units of every layer but the last. Initial weights grow as layers shrink, so that
    signals keep their size."""
    drop_layers: list[str] = field(default_factory=list)
    """Layers to leave out, [conv3]. A pooling layer above a dropped convolution stays."""
    towers: int = 1
    """Number of towers, 1 or 2. With 2, as over two GPUs, conv2, conv4 and conv5 see half of the maps below them. With
    1, every layer sees all maps."""
    towers_meet: list[str] | None = None
    """Layers that see both towers; the last one always does. null: conv3, conv6 and the fully connected layers, as in
    2012."""
    conv1_padding: Conv1Padding = Conv1Padding.right_bottom
    """Zeros around the image. right_bottom: right and below, so that the last window fits (2012: 3 at 224 pixels).
    symmetric: 2 on each side. none: no zeros."""
    activation: Activation = Activation.relu
    """Nonlinearity after every hidden layer. abs_tanh is |tanh(x)|."""
    order: dict[str, Order] = field(default_factory=dict)
    """Order of activation, LRN and pooling after a convolution, {conv1: lrn_pool_act}. Other layers have
    act_lrn_pool."""
    pooling: Pooling = Pooling.overlapping
    """Pooling windows. overlapping: 3x3 at stride 2. plain: 2x2 at stride 2, with paddings that keep the size of the
    last maps."""
    lrn: list[str] = field(default_factory=list)
    """Convolutions with local response normalisation, [conv1,conv2]. [] turns it off."""
    lrn_size: int = 5
    """Maps in a window of LRN; an odd number."""
    lrn_alpha: float = 1e-4
    """Factor of LRN's sum of squares, before lrn_alpha_convention. The default is made for pixels of 0..255."""
    lrn_beta: float = 0.75
    """Exponent of LRN."""
    lrn_k: float = 2.0
    """Constant that LRN adds to the sum. For small inputs it alone decides the scale."""
    lrn_alpha_convention: LrnAlphaConvention = LrnAlphaConvention.code
    """Meaning of lrn_alpha. code: divide it by lrn_size, as every released program does. paper: use it as the paper's
    formula is printed."""
    lrn_across_towers: bool = False
    """Let LRN's windows cross from one tower's maps to the other's, as in Caffe."""
    spatial_norm: list[str] = field(default_factory=list)
    """Convolutions with the unpublished normalisation over 5x5 places, after their LRN (2012: conv2)."""
    compile_lrn: CompileLrn = CompileLrn.on_gpu
    """Run the normalisations through torch.compile where there is a compiler. On CPUs a step gains little."""
    compile_net: bool = False
    """Run the whole net through torch.compile in training, forward and backward. Not measured on a GPU yet."""
    dropout: Dropout = Dropout.none
    """Kind of dropout. mask: zeros in training, and times 1 - rate in evaluation (2012). inverted: zeros in training,
    and survivors divided by 1 - rate."""
    dropout_rate: float = 0.5
    """Share of the units that dropout sets to zero."""
    dropout_at: DropoutAt = DropoutAt.outputs
    """Place of dropout: the outputs of the hidden fully connected layers (2012), or their inputs (torchvision)."""
    init: Init = Init.gaussian
    """Initial weights. gaussian: the table's std and bias. fan_in: Kaiming for relu, LeCun otherwise, biases 0. torch:
    torch's default."""
    std: dict[str, float] = field(default_factory=dict)
    """Initial standard deviation of single layers, {conv3: 0.03}, with init=gaussian. Other layers keep the table's."""
    bias: dict[str, float] = field(default_factory=dict)
    """Initial bias of single layers, {conv3: 1}, with init=gaussian. Other layers keep the table's."""
    parameter_names: ParameterNames = ParameterNames.layers
    """Names in the state dict. layers: conv1.weight. torchvision: features.0.weight, so that torchvision's weights
    load."""
    channels_last: bool = True
    """Store activations as NHWC. The numbers are the same, about 1.5 times as fast on a CPU."""


LEAST_PIXELS, MOST_PIXELS = 8, 4096
"""Side of an image as a store holds it, or a net is shown it"""


@dataclass
class Data:
    """conf/data: the images and what is done to them on their way into the net."""

    kind: str = MISSING
    """Where the images come from. shapes: generated, nothing to download. cifar10: 50,000 + 10,000 photographs. packed:
    a packed dataset (store), made by alexnet_pl.prepare."""
    name: str = MISSING
    """Name of the dataset, in figures, tags and claims. With data=packed the store gives it."""
    root: str | None = None
    """Folder of the dataset. packed: the store. cifar10: Hugging Face's Parquet files, or the pickles of the original
    release."""
    download: bool = False
    """Let torchvision download the dataset into root (cifar10, 170 MB)."""
    num_classes: int = MISSING
    """Number of classes."""
    size: int = 32
    """Side of the dataset's images in pixels."""
    store: str | None = None
    """Identity of the packed store, wherever it lies. The store itself gives it."""
    batch_size: int = 128
    """Images per step, over all devices."""
    shuffle: bool = True
    """Draw a new order in each epoch. false: one order for all epochs, as in 2012."""
    pixel_scale: float = 1.0
    """Divisor of the pixels, which are 0..255 minus the mean image. 1 as in 2012; 64 for about unit size."""
    mean_color: list[float] | None = None
    """Colour to subtract instead of the mean image, [123.7,116.3,103.5]: RGB of 0..255. null: the mean image."""
    resize: int | None = None
    """Scale the images to this side first. null: as they are, or just large enough for the crop."""
    crop_size: int | None = None
    """Train on squares of this many pixels, and test on the centre one. null: whole images."""
    random_crop: bool = True
    """Take the squares at random places in training. false: at the centre."""
    random_flip: bool = False
    """Mirror each training image with probability one half."""
    crop_chunk: int = 1
    """Training images in a row that share one place and one mirroring (2012: 32)."""
    color_noise: ColorNoise = ColorNoise.off
    """Add colour noise to each training image. The noise is random multiples of the principal components of the
    dataset's colours. paper: multiples of a tenth of the eigenvalues, pixels taken as 0..1, as the paper's formula
    says. released_2012: multiples of a tenth of their square roots, then divide by 1.1. On ImageNet this is 2 to 13
    times as strong, and the published numbers were made with it."""
    color_noise_until: int | None = None
    """Epochs with colour noise; later ones have none (net 145: 67). null: all have it."""
    workers: int | None = None
    """Threads that read ahead from a store. null: two; for JPEGs one for each CPU, up to 16."""
    on_device: OnDevice = OnDevice.if_it_fits
    """Keep a store's images in the device's memory. if_it_fits: on a GPU, if they are raw and each split takes at most
    a quarter of the free memory."""

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
    """Layers that the schedule is for."""
    milestones: list[float] = MISSING
    """When the rate of their weights changes, [67, 72]; 0 is from the start."""
    factors: list[float] = MISSING
    """Rate from each milestone on, as a factor of lr, [0.001, 0]; 0 freezes weights and biases."""


@dataclass
class Optim:
    """conf/optim: the update rule and how its learning rates fall."""

    name: Rule = Rule.sgd_2012
    """Update rule. sgd_2012: v <- momentum v - lr (weight_decay w + gradient), w <- w + v. sgd: torch's, which
    multiplies by lr outside the velocity."""
    lr: float = MISSING
    """Learning rate of the weights, at the start."""
    momentum: float = 0.9
    """Share of the velocity kept from step to step."""
    weight_decay: float = 0.0
    """Decay of the weights."""
    layer_decay: dict[str, float] = field(default_factory=dict)
    """Decay of single layers' weights, {fc10: 0.01}. Other layers have weight_decay."""
    decay_biases: bool = False
    """Decay the biases as well (2012: not)."""
    bias_lr_mult: float = 2.0
    """Learning rate of the biases over that of the weights."""
    schedule: Schedule = Schedule.epochs
    """Unit of the milestones below: epochs, or shares of the run. plateau: cut the rates when the validation error
    stops falling."""
    lr_milestones: list[float] = field(default_factory=list)
    """When the weights' rate changes, [25,51,79]."""
    lr_factors: list[float] = field(default_factory=list)
    """Rate from each milestone on, as a factor of lr, [0.1,0.01,0.001]."""
    bias_lr_milestones: list[float] = field(default_factory=list)
    """When the biases' rate changes. They do not follow the weights' milestones."""
    bias_lr_factors: list[float] = field(default_factory=list)
    """Rate from each milestone on, as a factor of lr * bias_lr_mult."""
    layer_lr: list[LayerLr] = field(default_factory=list)
    """Schedules of their own for single layers, [{layers: [conv1], milestones: [67, 72], factors: [0.001, 0]}]."""
    frozen: list[str] = field(default_factory=list)
    """Layers that never train, [conv1, conv2], in a net that starts from another's weights."""
    plateau_patience: int = 5
    """Validations without a lower error before all rates are divided by ten (schedule=plateau)."""
    plateau_cuts: int = 3
    """How often the rates are divided by ten (schedule=plateau; the paper: three times)."""


@dataclass
class Trainer:
    """conf/trainer: Lightning's Trainer arguments by name; null leaves Lightning's default."""

    accelerator: str = "auto"
    """Kind of device: auto, cpu, gpu or mps. auto: a CUDA GPU if there is one, else the CPU."""
    strategy: str | None = None
    """How several devices share the work: ddp, towers or owt (parallel/layouts.py). ddp, also called auto: each has the
    whole net. towers: each has one tower, as in 2012. owt: convolutions as in ddp; each has some units of the fully
    connected layers."""
    devices: Any = None
    """Devices on each machine; -1: all GPUs. On CPUs, processes."""
    num_nodes: int | None = None
    """Number of machines."""
    precision: str = "auto"
    """Precision of the arithmetic: auto, 32-true, bf16-mixed, 16-mixed or 64-true. auto: bf16-mixed on GPUs that have
    it, else 32-true."""
    max_epochs: int | None = None
    """Stop after this many epochs."""
    max_steps: int | None = None
    """Stop after this many updates."""
    max_time: str | None = None
    """Stop after this time, DD:HH:MM:SS. The same command goes on, unless this alone is the run's length."""
    limit_train_batches: Any = None
    """Training batches per epoch: a number, or a share of the dataset."""
    limit_val_batches: Any = None
    """Validation batches: a number, or a share of the dataset."""
    limit_test_batches: Any = None
    """Batches of the test at the end: a number, or a share of the dataset."""
    val_check_interval: Any = None
    """Validate every so many batches, or after this share of an epoch."""
    check_val_every_n_epoch: int | None = None
    """Validate every so many epochs."""
    num_sanity_val_steps: int | None = None
    """Validation batches tried before training."""
    enable_checkpointing: bool | None = None
    """Write checkpoints. false: none, and the run cannot be resumed."""
    enable_progress_bar: bool | None = None
    """Show progress. false: nothing while training."""
    accumulate_grad_batches: int | None = None
    """Batches per update."""
    gradient_clip_val: float | None = None
    """Clip the gradient's norm at this value."""
    deterministic: Any = None
    """Use deterministic algorithms only. warn: where they exist. cuDNN's are deterministic unless benchmark is true."""
    benchmark: bool | None = None
    """Let cuDNN time its algorithms and take the fastest. Two runs on GPUs then differ in their last bits."""
    profiler: str | None = None
    """Lightning's profiler: simple, advanced or pytorch."""
    more: dict[str, Any] = field(default_factory=dict)
    """Any other argument of Lightning's Trainer, typed as trainer.detect_anomaly=true."""


@dataclass
class Logger:
    """conf/logger: where metrics go besides the terminal; the run folder keeps metrics.csv unless name=none."""

    name: LoggerName = MISSING
    """Where metrics go. wandb: metrics.csv and Weights & Biases. tensorboard: metrics.csv and TensorBoard. csv:
    metrics.csv. none: nowhere, and the report has no curve."""
    mode: WandbMode = WandbMode.offline
    """How W&B logs. offline: write files to sync later, with no account and no network. online: send. disabled:
    metrics.csv only."""
    project: str = "alexnet_pl"
    """W&B project."""
    entity: str | None = None
    """W&B user or team."""
    tags: list[str] = field(default_factory=list)
    """W&B tags, besides the name of the sweep, the dataset and the net."""
    log_model: LogModel = LogModel.none
    """Keep the run's last or best checkpoint with W&B, as an artifact (see ckpt_path)."""


@dataclass
class Report:
    """How `alexnet_pl.report` draws the runs of one folder; read back from the runs."""

    panel: str = ""
    """Title of the panel that this run belongs to."""
    compare: list[str] = field(default_factory=list)
    """Keys whose values become the lines of a panel. []: those in which the jobs' overrides differ, but for the
    seed."""
    tuned: list[str] = field(default_factory=lambda: ["optim.lr"])
    """Keys that may differ between the lines of a panel besides those of compare. Any other difference is refused."""
    target: float | None = None
    """Training error whose crossing is timed, 0.25 for the paper's dashed line. null: nothing is timed."""
    published: dict[str, str] = field(default_factory=dict)
    """The paper's numbers for this panel: epochs to the target for each line, and `ratio`."""


@dataclass
class Config:
    """One run."""

    name: str = MISSING
    """Folder under runs/, and group in W&B."""
    scale: Scale = Scale.paper
    """Size of the run: paper, small (minutes on a GPU) or smoke (seconds). Smaller ones have folders of their own,
    runs/<name>_small; see conf/scale."""
    seed: int = MISSING
    """Seed of the initial weights, the order of the images and the augmentation."""
    ckpt_path: str | None = None
    """Run to continue: a run folder, or a checkpoint. A checkpoint may be wandb:ENTITY/PROJECT/NAME:ALIAS. The same
    net, data and rule go on in a folder of their own, on other devices or for longer. null: start from the
    beginning."""
    pretrained: str | None = None
    """Net whose weights this one starts with: a run folder, a checkpoint, or published weights. A checkpoint may be
    wandb:ENTITY/PROJECT/NAME:ALIAS. Published weights are torchvision, caffe:FILE, FILE.pth, FILE.safetensors,
    FILE.onnx, or an exported folder. null: all layers start anew."""
    pretrained_layers: PretrainedLayers = PretrainedLayers.conv
    """Layers to take from pretrained; the others start anew. conv: the convolutions that both nets have (2012). all:
    also the fully connected layers of the same shape."""
    train_error_window: int = MISSING
    """Images per point of the running training error, which is measured on the batches as they are trained."""
    train_eval_images: int = MISSING
    """Training images in the fixed subset that is evaluated after each epoch. 0: none."""
    stop_at_train_error: float | None = None
    """Stop once the running training error over an epoch is at or under this. null: train to max_epochs."""
    test_views: int = 0
    """Views per image of the test after training: 10, 9, 1, or 0 for no test. The test is on the validation set. 10:
    four corners, the centre, and their mirrors, averaged. 9: a 3x3 grid without mirrors (2012's CIFAR-10), averaged. 1:
    the centre."""
    stuck_after_steps: int = 500
    """Updates after which a warning says that the loss is still that of guessing, and what may be the cause. 0:
    never."""
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
