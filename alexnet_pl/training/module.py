"""The LightningModule: loss, running training error, evaluation, and what a checkpoint holds."""

from __future__ import annotations

import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from alexnet_pl.config.choices import Dropout, Schedule
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.data import augment
from alexnet_pl.errors import NotFinite
from alexnet_pl.model.build import build_net
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.parallel import layouts
from alexnet_pl.parallel.shard import Batch, parallelize
from alexnet_pl.training import optim


class ImageClassifier(pl.LightningModule):
    """A net under training.

    What it reports, all errors as shares between 0 and 1:
        train/error, train/loss   running: on the batches as they are trained, before each update, in windows of about
                                  `window` images; what cuda-convnet printed and Figure 1 most likely shows
        train/epoch_error         the same over a whole epoch
        train_eval/error              current weights on a fixed training subset, after each epoch
        val/error, val/loss       current weights on the validation set, after each epoch
        test/error, test/loss     final weights on the validation set by `test_views` views of each image
        .../top5_error            the right class is not among the five likeliest, where there are more than ten
        images_per_second         images trained per second, validation left out; in an epoch's row, over the epoch
        data_wait                 share of an epoch's time in which the device waited for images to be read
        lr                        learning rate of the weights
    Every row has `epoch` (images seen over images in the set: 1.5 is the middle of the second) and `images_seen`.
    """

    def __init__(self, cfg: Config, input_size: int) -> None:
        super().__init__()
        self.cfg, self.input_size = cfg, input_size
        self.net = build_net(cfg.model, input_size, cfg.seed)
        self.layout = torch.channels_last if cfg.model.channels_last else torch.contiguous_format
        self.batch = Batch()
        self.spread = False  # whether this process has its part of the net only
        self.images_seen = 0
        self.window_loss = math.nan  # mean training loss over the last window
        self.evaluated: dict[str, float] = {}  # since the last row of an epoch
        self.results: dict[str, float] = {}  # the latest of each value in the rows of epochs and of the test
        self.plateau: ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] = {}  # from a checkpoint
        # wrong answers, summed loss, images: of this window, counted on the device and read once a window; and of
        # this epoch. Not buffers: those would follow the net into low precision.
        self._window = torch.zeros(3)
        self._window_images = 0  # over all processes
        self._epoch = [0.0, 0.0, 0.0]
        self._epoch_seconds = 0.0  # of training
        self._start_clock()
        self._counts: dict[str, Tensor] = {}  # by set: wrong, not among five, summed loss, images

    def configure_model(self) -> None:
        """Take this process's part of the batch and of the net."""
        if self.spread:  # Lightning asks again before a test
            return
        self.spread = True
        self.where = layouts.layout(self.cfg.trainer)
        self.batch = Batch(*self.trainer.datamodule.share)  # type: ignore[attr-defined]
        plan = layer_specs(self.cfg.model, self.input_size)
        parallelize(self.net, plan, self.where, self.device_mesh, self.batch)

    def _sum(self, numbers: Tensor) -> Tensor:
        """Over the processes that share a batch; every process must ask."""
        if self.batch.size == 1:
            return numbers
        mesh = self.device_mesh
        group = mesh["data_parallel"].get_group() if mesh is not None else None
        return self.trainer.strategy.reduce(numbers.clone(), group=group, reduce_op="sum")

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float -> logits (N, num_classes)."""
        return self.net(images.contiguous(memory_format=self.layout))

    def lay_out(self, channels_last: bool) -> None:
        """Keep weights and activations in one memory layout or the other."""
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.layout)

    def configure_optimizers(self) -> Any:
        cfg = self.cfg.optim
        optimizer = optim.build_optimizer(self.net, cfg)
        if cfg.schedule is Schedule.plateau:
            # Stepped and saved here: Lightning's own handling loses the step of an epoch that was resumed.
            self.plateau = optim.plateau(optimizer, cfg)
            if self._plateau_state:
                self.plateau.load_state_dict(self._plateau_state)
        elif cfg.lr_milestones or cfg.bias_lr_milestones or cfg.conv1_lr_milestones:
            return [optimizer], [{"scheduler": optim.lr_schedule(optimizer, cfg, self._time), "interval": "step"}]
        return optimizer

    def _time(self, updates: int) -> float:
        """Where the run is after so many updates, in the unit of its schedule."""
        if not updates:  # asked before the trainer knows its data
            return 0.0
        an_epoch = math.ceil(int(self.trainer.num_training_batches) / self.trainer.accumulate_grad_batches)
        if self.cfg.optim.schedule is Schedule.epochs:
            return updates / an_epoch
        ends = (an_epoch * (self.trainer.max_epochs or -1), self.cfg.trainer.max_steps or -1)
        return updates / min(end for end in ends if end > 0)

    # -------------------------------------------------------------------------------------------- training

    def on_train_start(self) -> None:
        self._window = self._window.to(self.device)
        self.on_train_epoch_start()  # Lightning leaves it out where an epoch is resumed in its middle

    def on_train_epoch_start(self) -> None:
        self._epoch_seconds, self._epoch_from = 0.0, self.images_seen
        self._start_clock()

    def _start_clock(self) -> None:
        self._clock, self._timed_from = time.perf_counter(), self.images_seen

    def training_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int) -> Tensor:
        """The loss of this process's part of the batch, over the images of the whole."""
        images, labels, batch_images = batch
        self.batch.begin(batch_images)
        if self.cfg.model.dropout is not Dropout.none:  # a resumed run must draw the same masks
            torch.manual_seed(augment.seed(self.cfg.seed, self.trainer.current_epoch, batch_idx, 1))
        logits = self(images)
        total = F.cross_entropy(logits, labels, reduction="sum")
        with torch.no_grad():
            wrong = (logits.argmax(1) != labels).sum()
            count = torch.full_like(total, len(labels), dtype=torch.float32)
            self._window += torch.stack([wrong.float(), total.float(), count])
        self._window_images += batch_images
        self.images_seen += batch_images
        # Windows split an epoch evenly, so that none is too small to trust.
        batches = int(self.trainer.num_training_batches)
        epoch = min(self.images_per_epoch, batches * self.cfg.data.batch_size)
        windows = max(1, min(batches, round(epoch / self.cfg.train_error_window)))
        if (batch_idx + 1) * windows // batches > batch_idx * windows // batches:
            self._close_window()
        # Gradients of parts are summed, but DDP takes their mean.
        return total * ((self.batch.size if self.where.name == "ddp" else 1) / batch_images)

    def _close_window(self) -> None:
        """Report the running error and start counting anew.

        Raises:
            NotFinite: the loss is not finite; this step's update is not made, and no checkpoint has it.
        """
        wrong, loss, count = self._sum(self._window).tolist()  # the only wait for the device
        self.window_loss = loss / count
        if not math.isfinite(loss):
            raise NotFinite(
                f"the loss became {loss / count} in epoch {self.trainer.current_epoch + 1}: the usual cause is a "
                f"learning rate that is too high for this input scale (optim.lr={self.cfg.optim.lr}, "
                f"data.pixel_scale={self.cfg.data.pixel_scale})"
            )
        seconds = time.perf_counter() - self._clock
        self._epoch_seconds += seconds
        rate = (self.images_seen - self._timed_from) / seconds
        self._start_clock()
        self._epoch = [total + part for total, part in zip(self._epoch, (wrong, loss, count), strict=True)]
        self._window.zero_()
        self._window_images = 0
        # conv1 may have a schedule of its own, and comes first then
        lr = [group["lr"] for group in self.trainer.optimizers[0].param_groups if group["name"].endswith("weight")][-1]
        self.report({"train/error": wrong / count, "train/loss": loss / count, "images_per_second": rate, "lr": lr})

    def on_validation_start(self) -> None:
        self._validation_began = time.perf_counter()

    def on_validation_end(self) -> None:
        """Leave the time it took out of the speed."""
        if self.trainer.sanity_checking:
            return
        if self.plateau:
            self.plateau.step(self.evaluated["val/error"])
        self._clock += time.perf_counter() - self._validation_began

    def on_train_epoch_end(self) -> None:
        if self._window_images:  # the epoch was cut short, by max_steps or max_time
            self._close_window()
        error, self._epoch = self.epoch_error, [0.0, 0.0, 0.0]
        self.log("train/epoch_error", error, logger=False)
        evaluated, self.evaluated = self.evaluated, {}
        self.results |= {"train/epoch_error": error, **evaluated}
        self.report({"train/epoch_error": error, **evaluated, **self.epoch_speed})

    @property
    def epoch_error(self) -> float:
        """Running training error over the epoch so far, the open window included; every process must ask."""
        window = self._sum(self._window).tolist() if self._window_images else [0.0, 0.0, 0.0]
        wrong, _, count = (a + b for a, b in zip(self._epoch, window, strict=True))
        return wrong / count if count else math.nan

    @property
    def epoch_speed(self) -> dict[str, float]:
        """Of the epoch so far, or what was trained of it since it was resumed; validation left out."""
        seconds = self._epoch_seconds + time.perf_counter() - self._clock
        return {
            "images_per_second": (self.images_seen - self._epoch_from) / seconds,
            "data_wait": self.trainer.datamodule.batches.waited / seconds,  # type: ignore[attr-defined]
        }

    # -------------------------------------------------------------------------------------------- evaluation

    def validation_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels, batch_images = batch
        self.batch.begin(batch_images)
        self._count(("val", "train_eval")[dataloader_idx], self(images), labels)

    def test_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int) -> None:
        """The probabilities of a image's views are averaged, as in 2012."""
        images, labels, batch_images = batch
        self.batch.begin(batch_images, self.cfg.test_views)
        probabilities = self(images).float().softmax(1).unflatten(0, (len(labels), self.cfg.test_views)).mean(1)
        self._count("test", probabilities.clamp_min(torch.finfo(torch.float32).tiny).log(), labels)

    def _count(self, which: str, scores: Tensor, labels: Tensor) -> None:
        """Add up over a set; counted on the device, so that a small last batch weighs what it should."""
        five = scores.topk(min(5, scores.shape[1])).indices
        counts = [  # whole numbers are exact in fp32 up to 16 million
            (scores.argmax(1) != labels).sum(),
            (five != labels[:, None]).all(1).sum(),
            F.cross_entropy(scores.float(), labels, reduction="sum"),
            torch.ones_like(labels).sum(),
        ]
        self._counts[which] = self._counts.get(which, 0) + torch.stack([count.float() for count in counts])

    def _evaluated(self) -> dict[str, float]:
        """Errors and losses of the sets that were counted, over all processes; the counts begin anew."""
        results: dict[str, float] = {}
        for which, counts in self._counts.items():
            wrong, not_five, loss, count = self._sum(counts).tolist()
            results |= {f"{which}/error": wrong / count, f"{which}/loss": loss / count}
            if self.cfg.data.num_classes > 10:
                results[f"{which}/top5_error"] = not_five / count
        self._counts = {}
        return results

    def on_validation_epoch_end(self) -> None:
        evaluated = self._evaluated()
        self.evaluated = {} if self.trainer.sanity_checking else evaluated
        self.log_dict(evaluated, logger=False, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        results = self._evaluated()
        self.log_dict(results, logger=False, sync_dist=True)
        self.results |= results
        self.report(results)

    # -------------------------------------------------------------------------------------------- records

    @property
    def images_per_epoch(self) -> int:
        return self.trainer.datamodule.images_per_epoch  # type: ignore[attr-defined]

    def report(self, values: dict[str, float]) -> None:
        """Send one row to every logger, placed on the epoch axis."""
        row = {"epoch": self.images_seen / self.images_per_epoch, "images_seen": self.images_seen, **values}
        for logger in self.loggers:
            logger.log_metrics(row, step=self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Plain values and tensors, so that the file loads with weights_only and needs nothing else to be used."""
        checkpoint["config"] = as_dict(self.cfg)
        images = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["input"] = {"mean": images.mean.cpu(), "classes": images.classes}
        checkpoint["progress"] = {
            "images_seen": self.images_seen,
            "window": self._sum(self._window).tolist(),
            "epoch": self._epoch,
            "results": self.results,
        }
        if self.plateau:
            checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.net.to(next(iter(checkpoint["state_dict"].values())).dtype)  # Lightning would round through fp32
        progress = checkpoint["progress"]
        self.images_seen = progress["images_seen"]
        self._window = torch.tensor(progress["window"])
        self._window_images = round(progress["window"][2])
        if self.batch.rank:  # one of those that share the batch goes on counting
            self._window.zero_()
        self._epoch = progress["epoch"]
        self.results = progress["results"]
        self._plateau_state = checkpoint.get("plateau", {})
        if self.plateau:  # a net over several devices is restored after its optimiser is made
            self.plateau.load_state_dict(self._plateau_state)
