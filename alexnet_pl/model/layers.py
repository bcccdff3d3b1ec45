"""Layers that torch does not have: locally connected, within a tower, logits in full precision, dropout of 2012."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_pl.config.choices import Activation


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the memory format of feature maps (N, C, H, W): NHWC, or NCHW as written."""
    return torch.channels_last if channels_last else torch.contiguous_format


# ------------------------------------------------------------------------------------------------ modules
class LocalConv2d(nn.Module):
    """A convolution whose weights differ from place to place ("locally connected"), stride 1.

    `weight` is (places, kernels, channels * size * size), places row by row; `bias` is (kernels, height, width).
    """

    def __init__(self, inputs: tuple[int, int, int], outputs: tuple[int, int, int], size: int, padding: int) -> None:
        super().__init__()
        self.size, self.padding = size, padding
        kernels, height, width = outputs
        self.weight = nn.Parameter(torch.empty(height * width, kernels, inputs[0] * size * size))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, height, width) -> (N, kernels, height, width)."""
        return self.compute(x, self.weight, self.bias)

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Do the same with given weights, as F.conv2d does."""
        windows = F.unfold(x, self.size, padding=self.padding)  # (N, channels * size * size, places)
        out = windows.permute(2, 0, 1) @ weight.mT  # (places, N, kernels)
        return out.permute(1, 2, 0).unflatten(2, bias.shape[1:]) + bias


class TowerLinear(nn.Module):
    """Fully connected within each tower: the first half of the units sees the first half of the inputs.

    `weight` is (units, inputs // towers).
    """

    def __init__(self, inputs: int, outputs: int, towers: int) -> None:
        super().__init__()
        self.towers = towers
        self.weight = nn.Parameter(torch.empty(outputs, inputs // towers))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, units)."""
        weights = self.weight.unflatten(0, (self.towers, -1))
        return torch.einsum("ntc,tuc->ntu", x.unflatten(1, (self.towers, -1)), weights).flatten(1) + self.bias


class Logits(nn.Linear):
    """The last layer. Autocast leaves it in the precision of its weights, because errors are counted on its outputs.

    bf16 has 8 bits, so it rounds logits from 8 to 16 to 1/16. Of equal logits the first class would win.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, classes)."""
        device = x.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return super().forward(x)
        with torch.autocast(device, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class Flatten(nn.Flatten):
    """torch's Flatten, but with a gradient in the memory format of the maps.

    torch's own gives a gradient in NCHW, and on a CPU an average pool of channels-last maps then takes six times as
    long.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, height, width) -> (N, channels * height * width), row by row within each channel."""
        compiles = torch.compiler.is_compiling()  # which chooses a layout itself
        if x.requires_grad and x.is_contiguous(memory_format=torch.channels_last) and not compiles:
            x.register_hook(_to_channels_last)
        return super().forward(x)


def _to_channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


class MaskDropout(nn.Module):
    """Dropout as in 2012: a mask in training, and in evaluation everything times 1 - rate (paper, section 4.2).

    torch's own scales the survivors up in training instead. That changes the optimisation of the layer above: its
    inputs are twice as large, so its learning rate counts four times.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> the same."""
        if self.training:
            return x * torch.empty_like(x).bernoulli_(1 - self.rate)
        return x * (1 - self.rate)

    def extra_repr(self) -> str:
        return f"{self.rate}"


class AbsTanh(nn.Module):
    """|tanh(x)|, to which the paper's section 3.1 compares ReLU (Jarrett et al., 2009)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> the same."""
        return torch.tanh(x).abs()


def activation(kind: Activation) -> nn.Module:
    """Return the module of a nonlinearity."""
    return AbsTanh() if kind is Activation.abs_tanh else getattr(nn, kind.value)()
