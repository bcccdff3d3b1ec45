"""prototype"""

import torch
from torch import Tensor

CLASSES = ("disc", "ring", "square", "triangle", "cross", "flower", "bars", "checker", "crescent", "pair")
P = dict(
    hue=0.12,
    wild=0.35,
    alpha=(0.3, 1.0),
    radius=(6.0, 11.0),
    shift=5.0,
    turn=0.5,
    noise=40.0,
    clutter=1,
    bgsat=0.3,
    bgrange=(60.0, 190.0),
    tone=0.0,
)


def inside(kind: str, u: Tensor, v: Tensor) -> Tensor:
    r = (u * u + v * v).sqrt()
    box = torch.maximum(u.abs(), v.abs())
    if kind == "disc":
        return r - 0.85
    if kind == "ring":
        return (r - 0.75).abs() - 0.2
    if kind == "square":
        return box - 0.78
    if kind == "triangle":
        return torch.maximum(v - 0.6, 0.866 * u.abs() - 0.5 * v - 0.5)
    if kind == "cross":
        return torch.maximum(torch.minimum(u.abs(), v.abs()) - 0.26, box - 0.95)
    if kind == "flower":
        c = u / r.clamp(min=1e-3)
        c2 = c * c
        return r - 0.7 - 0.3 * c * (5 - c2 * (20 - 16 * c2))
    if kind == "bars":
        w = v * 1.5 + 0.25
        return torch.maximum(box - 0.92, ((w - w.floor()) - 0.5).abs() * 0.67 - 0.167)
    if kind == "checker":
        a, b = ((3 * t + 3) * 0.5 for t in (u, v))
        a, b = (((t - t.floor()) - 0.5).abs() - 0.25 for t in (a, b))
        return torch.maximum(box - 0.95, torch.where((a < 0) == (b < 0), -1.0, 1.0) * torch.minimum(a.abs(), b.abs()))
    if kind == "crescent":
        return torch.maximum(r - 0.92, 0.72 - ((u - 0.42) ** 2 + v * v).sqrt())
    if kind == "pair":
        return ((u.abs() - 0.55) ** 2 + v * v).sqrt() - 0.42
    raise ValueError(kind)


def shapes(count: int, seed: int):
    g = torch.Generator().manual_seed(seed)
    grid = torch.arange(32.0) - 15.5
    pics, labels = [], []
    for k, kind in enumerate(CLASSES):
        n = (count + 9 - k) // 10

        def rand(*s, lo=0.0, hi=1.0):
            return lo + (hi - lo) * torch.rand(n, *s, generator=g, dtype=torch.float64)

        def place(radius, shift, turn, squash=1.0):
            a = rand(1, 1, lo=-turn, hi=turn)
            cos, sin = (a.cos() / radius).float(), (a.sin() / radius).float()
            x = grid - rand(1, 1, lo=-shift, hi=shift).float()
            y = grid[:, None] - rand(1, 1, lo=-shift, hi=shift).float()
            return cos * x + sin * y, cos * y - sin * x

        def rgb(h, s, val):
            t = (h * 6 + torch.tensor([0.0, 4.0, 2.0], dtype=torch.float64)) % 6
            return val * (1 - s + s * ((t - 3).abs() - 1).clamp(0, 1))

        radius = rand(1, 1, lo=P["radius"][0], hi=P["radius"][1])
        f = inside(kind, *place(radius, P["shift"], P["turn"])) * radius.float()
        mask = (0.5 - f).clamp(0, 1)[..., None] * rand(1, 1, 1, lo=P["alpha"][0], hi=P["alpha"][1]).float()
        h = k / 10 + P["hue"] * (rand(1) + rand(1) - 1)
        h = torch.where(rand(1) < P["wild"], rand(1), h)
        ink = rgb(h, rand(1, lo=0.5), rand(1, lo=150, hi=255)).float()[:, None, None]
        paper = [
            rgb(rand(1), rand(1, hi=P["bgsat"]), rand(1, lo=P["bgrange"][0], hi=P["bgrange"][1])).float()[:, None, None]
            for _ in range(2)
        ]
        u, _ = place(24.0, 5.0, 3.14159)
        t = (u + 0.5).clamp(0, 1)[..., None]
        pic = paper[0] + (paper[1] - paper[0]) * t
        for _ in range(P["clutter"]):
            rad = rand(1, 1, lo=2.0, hi=5.0)
            a, b = place(rad, 15.0, 3.14159)
            m = ((1 - (a * a + b * b * 2.0).sqrt()) * rad.float()).clamp(0, 1)[..., None]
            pic = pic + (rgb(rand(1), rand(1), rand(1, lo=60, hi=230)).float()[:, None, None] - pic) * m
        pic = pic + (ink - pic) * mask
        q = (
            torch.randint(-(2**31), 2**31, (n, 32, 32, 3), dtype=torch.int32, generator=g)
            .view(torch.uint8)
            .view(n, 32, 32, 3, 4)
        )
        nz = (q[..., 0].float() + q[..., 1] - 255) / 104.0
        pic = pic + nz * P["noise"] * rand(1, 1, 1).float()
        pics.append(pic.round().clamp(0, 255).to(torch.uint8))
        labels.append(torch.full((n,), k))
    o = torch.randperm(count, generator=g)
    return torch.cat(pics)[o], torch.cat(labels)[o]
