"""Generate images of ten shapes: the dataset that needs no download.

They are small colour images in the form of CIFAR-10's (32x32, RGB, ten classes). Each shows one shape:

* It is up to five pixels off the middle, of varying size, slightly turned, and often see-through.
* Its class has a favourite colour, as lemons and leaves have. The colours of neighbouring classes overlap widely, and
  about one shape in seven has any colour at all.
* The background goes from any shade to any other, in any direction. Most images are somewhat grainy.

So some images are easy and some are hard, and a net's error falls gradually; colour alone gets it part of the way.
The ranges below were chosen by measurement: ReLU and tanh differ about as on CIFAR-10, by five to six times, and runs
are shorter. So the images are an illustration, not independent evidence.

The same (count, seed) gives the same images everywhere. One generator draws all random numbers. The sines are computed
in double precision. The rest is sums, products, quotients and square roots, which every machine rounds alike.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SIZE = 32  # pixels along a side


def draw_shapes(classes: Sequence[str], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw `count` images, equally many of each class (give or take one), in random order.

    Args:
        classes: shapes that `outline` knows, in the order of their labels.
    Returns:
        The images, uint8 [count, 32, 32, 3] from 0 to 255, and their labels, int64 [count].
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(range(label, count, len(classes))) for label in range(len(classes))]
    images = torch.cat([draw_class(classes, label, size, generator) for label, size in enumerate(sizes)])
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor(sizes))
    order = torch.randperm(count, generator=generator)
    return images[order], labels[order]


def draw_class(classes: Sequence[str], label: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` images of one class: uint8 [count, 32, 32, 3]."""

    def between(low: float, high: float) -> Tensor:
        """Draw one number for each image, float64 [count, 1, 1]."""
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator, dtype=torch.float64)

    # The ground: a gradient between two greyish colours.
    across, _ = frame(between(-5, 5), between(-5, 5), between(24, 24), between(-math.pi, math.pi))
    one, other = (rgb(between(0, 1), between(0, 0.3), between(10, 255)) for _ in range(2))
    image = mix(one, other, (across + 0.5).clamp(0, 1))

    # The shape: mostly in about its class's colour, with a soft edge one pixel wide.
    radius = between(8, 12)
    u, v = frame(between(-5, 5), between(-5, 5), radius, between(-0.2, 0.2))
    inside = (0.5 - outline(classes[label], u, v) * radius.float()).clamp(0, 1)
    hue = label / len(classes) + between(-0.1, 0.1) + between(-0.1, 0.1)
    hue = torch.where(between(0, 1) < 0.15, between(0, 1), hue)
    ink = rgb(hue, between(0.5, 1), between(150, 255))
    image = mix(image, ink, inside * between(0.6, 1).float())

    # The grain: each value a little off, by more in some images than in others.
    grain = torch.randint(256, image.shape, generator=generator, dtype=torch.uint8) / 127.5 - 1
    image += grain * between(0, 45)[..., None].float()
    return image.round_().clamp_(0, 255).to(torch.uint8)


def frame(x: Tensor, y: Tensor, radius: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Return the position of each pixel relative to a shape at (x, y) off the middle, turned by `turn` radians.

    The arguments are float64 [n, 1, 1]; `radius` is in pixels. The result is (u, v), each float32 [n, 32, 32]: to the
    right of the shape's middle and down, in radii.
    """
    cos, sin = (turn.cos() / radius).float(), (turn.sin() / radius).float()
    pixel = torch.arange(SIZE) - (SIZE - 1) / 2
    right, down = pixel - x.float(), pixel[:, None] - y.float()
    return cos * right + sin * down, cos * down - sin * right


def outline(shape: str, u: Tensor, v: Tensor) -> Tensor:
    """Return roughly how far each point is outside the shape's outline, in radii; negative inside.

    u, v and the result are float32 [n, 32, 32].
    """
    r = (u * u + v * v).sqrt()
    box = torch.maximum(u.abs(), v.abs())
    match shape:
        case "disc":
            return r - 0.85
        case "ring":
            return (r - 0.75).abs() - 0.2
        case "square":
            return box - 0.78
        case "triangle":
            return torch.maximum(v - 0.6, 0.866 * u.abs() - 0.5 * v - 0.5)
        case "cross":
            return torch.maximum(box - 0.95, torch.minimum(u.abs(), v.abs()) - 0.26)
        case "flower":  # five petals: the cosine of five times the angle, as a polynomial in the angle's cosine
            c = u / r.clamp(min=1e-3)
            return r - 0.7 - 0.3 * c * (5 - c * c * (20 - 16 * c * c))
        case "bars":  # three
            return torch.maximum(box - 5 / 6, stripes(1.5 * v) / 1.5)
        case "checker":  # four fields by four: in one set of stripes but not in both
            a, b = stripes(1.125 * u + 0.25), stripes(1.125 * v + 0.25)
            odd = torch.maximum(torch.minimum(a, b), -torch.maximum(a, b))
            return torch.maximum(box - 8 / 9, odd / 1.125)
        case "crescent":
            bite = (u - 0.42) * (u - 0.42) + v * v
            return torch.maximum(r - 0.92, 0.72 - bite.sqrt())
        case "pair":
            side = u.abs() - 0.55
            return (side * side + v * v).sqrt() - 0.42
    raise ValueError(f"no such shape: {shape!r}")


def stripes(t: Tensor) -> Tensor:
    """Return the same as `outline` on a line, for stripes half a unit wide around the whole numbers."""
    return (t - t.round()).abs() - 0.25


def rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return colours, float32 [n, 1, 1, 3] from 0 to `value`. Arguments are float64 [n, 1, 1]; whole hues are red."""
    turns = torch.stack([hue, hue + 2 / 3, hue + 1 / 3], dim=-1) % 1
    pure = ((turns * 6 - 3).abs() - 1).clamp(0, 1)
    return (value[..., None] * (1 - saturation[..., None] * (1 - pure))).float()


def mix(below: Tensor, above: Tensor, share: Tensor) -> Tensor:
    """Blend one image, float32 [n, 32 or 1, 32 or 1, 3], over another, with a weight float32 [n, 32, 32]."""
    return below + (above - below) * share[..., None]
