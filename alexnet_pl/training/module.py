"""The LightningModule: loss, running training error, evaluation, and what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from alexnet_pl.config.choices import Dropout, Schedule
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.data import augment
from alexnet_pl.data.loader import BatchSlice, Replica
from alexnet_pl.errors import NotFinite
from alexnet_pl.model.build import build_net, compiled_forward
from alexnet_pl.model.layers import memory_format
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.parallel import layouts, strategies
from alexnet_pl.parallel.parts import Parts
from alexnet_pl.parallel.shard import CurrentSlice, parallelize
from alexnet_pl.training import optim
from alexnet_pl.training.meters import EvaluationCounts, RunningError, Throughput, ends_window

Batch = tuple[Tensor, Tensor, BatchSlice]
"""Images (n, 3, H, W), labels (n,), and their slice of the whole batch"""


class ImageClassifier(pl.LightningModule):
    """A net in training. It reports these metrics, with errors as shares between 0 and 1:

        train/error, train/loss   running: on the batches as they are trained, before each update, in windows of about
                                  `train_error_window` images; printed by cuda-convnet, most likely shown in Figure 1
        train/epoch_error         the same over a whole epoch
        train_eval/error          current weights on a fixed training subset, after each epoch
        val/error, val/loss       current weights on the validation set, after each epoch
        test/error, test/loss     final weights on the validation set by `test_views` views of each image
        .../top5_error            the right class is not among the five likeliest, where there are more than ten
        images_per_second         images trained per second, validation left out; in an epoch's row, over the epoch
        data_wait                 share of an epoch's time in which the device waited for images to be read
        lr                        learning rate of the weights

    Every row has `epoch` (images seen over images in the dataset: 1.5 is the middle of the second) and `images_seen`.
    """

    def __init__(self, cfg: Config, input_size: int) -> None:
        super().__init__()
        self.cfg, self.input_size = cfg, input_size
        self.net = build_net(cfg.model, input_size, cfg.seed)
        optim.freeze(self.net, cfg.optim)
        self.memory_format = memory_format(cfg.model.channels_last)
        self.parts: Parts | None = None  # once `net` is this process's part of the net
        self.compiled: Callable[[Tensor], Tensor] | None = None  # its forward, where training compiles it
        self.replica = Replica()
        self.current = CurrentSlice()
        self.images_seen = 0
        self.running_error = RunningError()
        self.throughput = Throughput()
        self.evaluation = EvaluationCounts()
        self.window_loss = math.nan  # mean training loss over the last window
        self.eval_results: dict[str, float] = {}  # of the latest validation, until an epoch's row has them
        self.results: dict[str, float] = {}  # the latest of each value in the rows of epochs and of the test
        self.first_gradient_is_finite: Tensor | None = None  # since this process began; None before its first update
        self.plateau: ReduceLROnPlateau | None = None
        self.plateau_state: dict[str, Any] = {}  # from a checkpoint

    def configure_model(self) -> None:
        """Take this process's slice of each batch and its part of the net."""
        if self.parts:  # Lightning asks again before a test
            return
        self.layout = layouts.layout(self.cfg.trainer)
        self.replica = self.trainer.datamodule.replica  # type: ignore[attr-defined]
        plan = layer_specs(self.cfg.model, self.input_size)
        self.parts = parallelize(self.net, plan, self.layout, self.device_mesh, self.current)
        if self.cfg.model.compile_net:
            self.compiled = compiled_forward(self.net)

    def sum_over_replicas(self, numbers: Tensor) -> Tensor:
        """Sum over the processes that share a batch; every process must call this."""
        if self.replica.count == 1:
            return numbers
        mesh = self.device_mesh
        group = mesh["data_parallel"].get_group() if mesh is not None else None
        return self.trainer.strategy.reduce(numbers.clone(), group=group, reduce_op="sum")

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float -> logits (N, num_classes)."""
        net = self.compiled if self.compiled and self.training else self.net
        return net(images.contiguous(memory_format=self.memory_format))

    def configure_optimizers(self) -> Any:
        """Return the optimiser, and the schedule, if any, that Lightning steps after each update."""
        cfg = self.cfg.optim
        optimizer = optim.build_optimizer(self.net, cfg)
        if cfg.schedule is Schedule.plateau:
            # Stepped and saved here: Lightning's own handling loses the step of an epoch that was resumed.
            self.plateau = optim.plateau_schedule(optimizer, cfg)
            if self.plateau_state:
                self.plateau.load_state_dict(self.plateau_state)
        elif cfg.lr_milestones or cfg.bias_lr_milestones or optim.own_schedules(cfg):
            schedule = optim.lr_schedule(optimizer, cfg, self._schedule_time)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]
        return optimizer

    def _schedule_time(self, updates: int) -> float:
        """Return the time after a number of updates, in the unit of the run's schedule."""
        if not updates:  # asked before the trainer knows its data
            return 0.0
        epoch_updates = math.ceil(int(self.trainer.num_training_batches) / self.trainer.accumulate_grad_batches)
        if self.cfg.optim.schedule is Schedule.epochs:
            return updates / epoch_updates
        ends = (epoch_updates * (self.trainer.max_epochs or -1), self.cfg.trainer.max_steps or -1)
        return updates / min(end for end in ends if end > 0)

    # -------------------------------------------------------------------------------------------- training

    def on_train_start(self) -> None:
        """Move the counts to the device, and start the clock: a resumed epoch has no `on_train_epoch_start`."""
        self.running_error.to(self.device)
        self.throughput.start_epoch()

    def on_train_epoch_start(self) -> None:
        """Start the epoch's clock."""
        self.throughput.start_epoch()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return this process's share of the mean loss over the images of the whole batch."""
        images, labels, self.current.slice = batch
        batch_images = self.current.slice.of
        self._seed_dropout(batch_idx)
        logits = self(images)
        summed_loss = F.cross_entropy(logits, labels, reduction="sum")
        self.running_error.add(logits, labels, summed_loss, batch_images)
        self.throughput.add(batch_images)
        self.images_seen += batch_images
        if self._ends_window(batch_idx):
            self._report_window()
        return summed_loss * (strategies.ddp_factor(self.layout) / batch_images)

    def _seed_dropout(self, batch_idx: int) -> None:
        """Seed the dropout masks by the batch's number, so that a resumed run and all processes draw the same."""
        if self.cfg.model.dropout is not Dropout.none:
            torch.manual_seed(augment.seed(self.cfg.seed, self.trainer.current_epoch, batch_idx, 1))

    def _ends_window(self, batch_idx: int) -> bool:
        """Return whether a window of the running error ends with this batch.

        Windows split an epoch evenly, so that none is too small to trust.
        """
        batches = int(self.trainer.num_training_batches)
        images = min(self.images_per_epoch, batches * self.cfg.data.batch_size)
        windows = max(1, min(batches, round(images / self.cfg.train_error_window)))
        return ends_window(batch_idx, batches, windows)

    def _report_window(self) -> None:
        """Close the window, and report its error, loss and speed.

        Raises:
            NotFinite: the loss is not finite. This step's update is not made, and no checkpoint has it.
        """
        error, self.window_loss = self.running_error.close_window(self.sum_over_replicas)
        speed = self.throughput.close_window()
        self._refuse_infinite("the loss", self.window_loss)
        # layers with a schedule or a decay of their own come first
        lr = [group["lr"] for group in self.trainer.optimizers[0].param_groups if group["name"].endswith("weight")][-1]
        self.report({"train/error": error, "train/loss": self.window_loss, "images_per_second": speed, "lr": lr})

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Note whether the first gradient is finite, without waiting for the device."""
        if self.first_gradient_is_finite is None:
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            self.first_gradient_is_finite = torch.stack([g.isfinite().all() for g in gradients]).all()

    def _refuse_infinite(self, name: str, value: float) -> None:
        """Raise NotFinite, with likely causes, if a loss or an error is not finite."""
        if math.isfinite(value):
            return
        m, lr, scale = self.cfg.model, self.cfg.optim.lr, self.cfg.data.pixel_scale
        finite = self.first_gradient_is_finite  # in 16-mixed the first is not, until the losses' scale has come down
        if finite is not None and (finite or self.cfg.trainer.precision == "16-mixed"):
            reason = f"a learning rate that is too high for this input scale (optim.lr={lr}, data.pixel_scale={scale})"
            raise NotFinite(
                f"{name} became {value} in epoch {self.trainer.current_epoch + 1}: the usual cause is {reason}"
            )
        raise NotFinite(
            f"{name} is {value}, and was not to be had before the first update: the net makes numbers of its images "
            f"that are too large, whatever the learning rate (model.lrn_alpha={m.lrn_alpha}, model.lrn_beta="
            f"{m.lrn_beta}, model.lrn_k={m.lrn_k}, model.std={m.std}, data.pixel_scale={scale})"
        )

    def on_validation_start(self) -> None:
        """Stop the clock: the speed leaves out the time of a validation."""
        self.throughput.pause()

    def on_validation_end(self) -> None:
        """Step the plateau schedule, and start the clock again."""
        if self.trainer.sanity_checking:
            return
        if self.plateau:
            self.plateau.step(self.eval_results["val/error"])
        self.throughput.resume()

    def on_train_epoch_end(self) -> None:
        """Report the row of the epoch."""
        if self.running_error.window_images:  # the epoch was cut short, by max_steps or max_time
            self._report_window()
        results = {"train/epoch_error": self.epoch_error(), **self.eval_results}
        self.running_error.start_epoch()
        self.eval_results = {}
        self.log("train/epoch_error", results["train/epoch_error"], logger=False)
        self.results |= results
        self.report({**results, **self.epoch_speed()})

    def epoch_error(self) -> float:
        """Return the running training error over the epoch so far; every process must call this."""
        return self.running_error.epoch_error(self.sum_over_replicas)

    def epoch_speed(self) -> dict[str, float]:
        """Return images_per_second and data_wait of the epoch so far, or since it was resumed."""
        seconds = self.throughput.epoch_seconds
        wait_seconds = self.trainer.datamodule.train_batches.wait_seconds  # type: ignore[attr-defined]
        return {"images_per_second": self.throughput.epoch_images / seconds, "data_wait": wait_seconds / seconds}

    # -------------------------------------------------------------------------------------------- evaluation

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the errors of a batch."""
        images, labels, self.current.slice = batch
        self.evaluation.add(("val", "train_eval")[dataloader_idx], self(images), labels)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the errors of a batch; the probabilities of an image's views are averaged (paper, section 4.1)."""
        images, labels, part = batch
        views = self.cfg.test_views
        self.current.slice = part.times(views)
        probabilities = self(images).float().softmax(1).unflatten(0, (len(labels), views)).mean(1)
        self.evaluation.add("test", probabilities.clamp_min(torch.finfo(torch.float32).tiny).log(), labels)

    def on_validation_epoch_end(self) -> None:
        """Close the counts, and store the results for the epoch's row."""
        results = self._close_evaluation()
        self.eval_results = {} if self.trainer.sanity_checking else results

    def on_test_epoch_end(self) -> None:
        """Close the counts, and report the row of the test."""
        results = self._close_evaluation()
        self.results |= results
        self.report(results)

    def _close_evaluation(self) -> dict[str, float]:
        """Return errors and losses of the evaluated sets, and pass them to Lightning's callbacks.

        Raises:
            NotFinite: the last updates have left a net without finite outputs.
        """
        results = self.evaluation.close(self.sum_over_replicas, with_top5=self.cfg.data.num_classes > 10)
        for name, value in results.items():
            self._refuse_infinite(name, value)
        self.log_dict(results, logger=False, sync_dist=True)
        return results

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
        """Add plain values and tensors, so that the file loads with weights_only and needs nothing else to be used."""
        checkpoint["config"] = as_dict(self.cfg)
        images = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["input"] = {"mean": images.mean.cpu(), "classes": images.classes}
        checkpoint["progress"] = {
            "images_seen": self.images_seen,
            **self.running_error.state_dict(self.sum_over_replicas),
            "results": self.results,
        }
        if self.plateau:
            checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counts of the run that wrote the checkpoint, and the dtype of its weights."""
        self.net.to(next(iter(checkpoint["state_dict"].values())).dtype)  # Lightning would round through fp32
        progress = checkpoint["progress"]
        self.images_seen = progress["images_seen"]
        self.running_error.load_state_dict(progress, first=self.replica.rank == 0)
        self.results = progress["results"]
        self.plateau_state = checkpoint.get("plateau", {})
        if self.plateau:  # a net over several devices is restored after its optimiser is made
            self.plateau.load_state_dict(self.plateau_state)
