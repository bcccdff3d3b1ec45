"""AlexNet of 2012 in NumPy, float64, written from the rules themselves: what the tests compare the package with.

First layers with weights, then pooling, normalisation, activations and the loss; of them two nets; last, one update.
Arrays are (batch, channels, height, width). A layer returns its output and a function that takes the gradient of
the output to the gradient of the input, or, for a layer with parameters, to those of (input, weight, bias).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from math import ceil, isqrt
from typing import Any

import numpy as np

Array = np.ndarray
Backward = Callable[..., Any]
Out = tuple[Array, Backward]
Result = tuple[Array, float, dict[str, Array]]


def on_canvas(x: Array, pad: int, height: int, width: int) -> tuple[Array, tuple[Any, ...]]:
    """x with `pad` zeros before its first row and column, on at least height x width pixels; and where x lies there."""
    inside = (..., slice(pad, pad + x.shape[2]), slice(pad, pad + x.shape[3]))
    canvas = np.zeros((*x.shape[:2], max(height, pad + x.shape[2]), max(width, pad + x.shape[3])))
    canvas[inside] = x
    return canvas, inside


def conv(
    x: Array, weight: Array, bias: Array, stride: int = 1, pad: int = 0, groups: int = 1, rounding: Callable = ceil
) -> Out:
    """Convolution of x (n, c, height, width) with weight (out, c / groups, k, k) and bias (out,).

    Output (i, j) sees the k x k pixels that begin at (stride * i - pad, stride * j - pad); pixels outside the image are
    0. In 2012 the width is rounded up: conv1 makes 55 of 224 at 11/4/0 by 3 zeros at the right and the bottom.
    `rounding=floor` is the rule of torch.
    """
    (n, c, height, width), (out_maps, _, k, _) = x.shape, weight.shape
    rows, columns = (1 + rounding((2 * pad + size - k) / stride) for size in (height, width))
    canvas, inside = on_canvas(x, pad, stride * (rows - 1) + k, stride * (columns - 1) + k)
    kernels = np.ascontiguousarray(weight.reshape(groups, out_maps // groups, -1, k, k).transpose(3, 4, 0, 1, 2))

    def seen(u: int, v: int) -> tuple[Any, ...]:
        """Where on the canvas all windows have their pixel (u, v)."""
        return (..., slice(u, u + stride * (rows - 1) + 1, stride), slice(v, v + stride * (columns - 1) + 1, stride))

    def flat(pixels: Array) -> Array:
        """(n, maps, rows, columns) to (n, groups, maps / groups, rows * columns)."""
        return pixels.reshape(n, groups, -1, rows * columns)

    out = np.zeros((n, out_maps, rows, columns)) + bias[:, None, None]
    for u, v in np.ndindex(k, k):
        out += (kernels[u, v] @ flat(canvas[seen(u, v)])).reshape(out.shape)

    def backward(grad: Array) -> tuple[Array, Array, Array]:
        grad_canvas, grad_kernels = np.zeros(canvas.shape), np.zeros(kernels.shape)
        for u, v in np.ndindex(k, k):
            grad_canvas[seen(u, v)] += (kernels[u, v].swapaxes(1, 2) @ flat(grad)).reshape(n, c, rows, columns)
            grad_kernels[u, v] = (flat(grad) @ flat(canvas[seen(u, v)]).swapaxes(2, 3)).sum(0)
        return grad_canvas[inside], grad_kernels.transpose(2, 3, 4, 0, 1).reshape(weight.shape), grad.sum((0, 2, 3))

    return out, backward


def local(x: Array, weight: Array, bias: Array, pad: int = 0) -> Out:
    """Convolution of stride 1 with kernels of its own at every position, from x (n, c, height, width).

    weight (rows * columns, out, c * k * k): positions row by row, the pixels of a window channel by channel and then
    row by row; bias (out, rows, columns).
    """
    n, c, height, width = x.shape
    k = isqrt(weight.shape[2] // c)
    rows, columns = height + 2 * pad - k + 1, width + 2 * pad - k + 1
    assert (weight.shape, bias.shape[1:]) == ((rows * columns, len(bias), c * k * k), (rows, columns))
    canvas, inside = on_canvas(x, pad, height + 2 * pad, width + 2 * pad)
    out = np.zeros((n, *bias.shape)) + bias
    for i, j in np.ndindex(rows, columns):
        out[:, :, i, j] += canvas[:, :, i : i + k, j : j + k].reshape(n, -1) @ weight[i * columns + j].T

    def backward(grad: Array) -> tuple[Array, Array, Array]:
        grad_canvas, grad_weight = np.zeros(canvas.shape), np.zeros(weight.shape)
        for p, (i, j) in enumerate(np.ndindex(rows, columns)):
            window = canvas[:, :, i : i + k, j : j + k]
            grad_weight[p] = grad[:, :, i, j].T @ window.reshape(n, -1)
            grad_canvas[:, :, i : i + k, j : j + k] += (grad[:, :, i, j] @ weight[p]).reshape(window.shape)
        return grad_canvas[inside], grad_weight, grad.sum(0)

    return out, backward


def full(x: Array, weight: Array, bias: Array) -> Out:
    """Fully connected layer: x (n, ...), flattened in the order channel, row, column; weight (out, in), bias (out,)."""
    flat = x.reshape(len(x), -1)
    return flat @ weight.T + bias, lambda grad: ((grad @ weight).reshape(x.shape), grad.T @ flat, grad.sum(0))


def windows(n: int, size: int, stride: int) -> list[slice]:
    """The windows on a line of n pixels, cut at its end: ceil((n - size) / stride) + 1 of them."""
    assert stride <= size  # else the last one could begin beyond the line
    return [slice(start, min(start + size, n)) for start in range(0, stride * ceil((n - size) / stride) + 1, stride)]


def max_pool(x: Array, size: int, stride: int) -> Out:
    """The largest pixel of each window; of equal ones the first, row by row, gets the gradient, as in torch."""
    n, maps, height, width = x.shape
    rows, columns = windows(height, size, stride), windows(width, size, stride)
    where = np.zeros((n, maps, len(rows) * len(columns)), int)  # the pixel's number in its map
    for p, (row, column) in enumerate(product(rows, columns)):
        first = x[:, :, row, column].reshape(n, maps, -1).argmax(-1)
        down, right = np.divmod(first, column.stop - column.start)
        where[:, :, p] = (row.start + down) * width + column.start + right
    index = (np.arange(n)[:, None, None], np.arange(maps)[:, None], where)

    def backward(grad: Array) -> Array:
        grad_x = np.zeros((n, maps, height * width))
        np.add.at(grad_x, index, grad.reshape(where.shape))  # windows overlap: one pixel may be the maximum of several
        return grad_x.reshape(x.shape)

    return x.reshape(n, maps, -1)[index].reshape(n, maps, len(rows), len(columns)), backward


def avg_pool(x: Array, size: int, stride: int) -> Out:
    """The mean of each window over those of its pixels that exist."""

    def means(n: int) -> Array:
        """(windows, n): row i takes a line of n pixels to the mean of window i."""
        cuts = windows(n, size, stride)
        return np.stack([np.isin(np.arange(n), np.arange(n)[cut]) / (cut.stop - cut.start) for cut in cuts])

    down, right = (means(n) for n in x.shape[2:])
    return down @ x @ right.T, lambda grad: down.T @ grad @ right


def neighbours(n: int, size: int, towers: int = 1) -> Array:
    """(n, n) of 0 and 1: whether j is among the `size` neighbours centred at i, and in the same tower as i."""
    assert n % towers == 0
    i, j = np.arange(n)[:, None], np.arange(n)
    near = (i - size // 2 <= j) & (j < i - size // 2 + size)
    return (near & (i * towers // n == j * towers // n)).astype(float)


def divide(x: Array, total: Callable, shares: Callable, k: float, alpha: float, beta: float) -> Out:
    """x * (k + alpha * total(x^2))^-beta; `total` is linear and `shares` its transpose."""
    scale = k + alpha * total(x**2)

    def backward(grad: Array) -> Array:
        through_scale = -beta * grad * x * scale ** (-beta - 1)
        return grad * scale**-beta + 2 * alpha * x * shares(through_scale)

    return x * scale**-beta, backward


def lrn(x: Array, size: int, k: float, alpha_per_element: float, beta: float, towers: int = 1) -> Out:
    """Across `size` neighbouring maps of one tower; alpha multiplies the sum of their squares, not the mean."""
    near = neighbours(x.shape[1], size, towers)
    across = partial(np.einsum, "cd,ndhw->nchw", optimize=True)
    return divide(x, lambda a: across(near, a), lambda a: across(near.T, a), k, alpha_per_element, beta)


def spatial_norm(x: Array, size: int = 5, alpha_per_element: float = 1e-3 / 25, beta: float = 0.75) -> Out:
    """Across the size x size pixels around each one, in its own map; the paper does not mention this layer."""
    down, right = (neighbours(n, size) for n in x.shape[2:])
    return divide(x, lambda a: down @ a @ right.T, lambda a: down.T @ a @ right, 1.0, alpha_per_element, beta)


def relu(x: Array) -> Out:
    return np.maximum(x, 0), lambda grad: grad * (x > 0)


def tanh(x: Array) -> Out:
    y = np.tanh(x)
    return y, lambda grad: grad * (1 - y**2)


def sigmoid(x: Array) -> Out:
    y = (1 + np.tanh(x / 2)) / 2  # 1 / (1 + exp(-x)) without its overflow
    return y, lambda grad: grad * y * (1 - y)


def abs_tanh(x: Array) -> Out:
    y = np.tanh(x)
    return np.abs(y), lambda grad: grad * np.sign(y) * (1 - y**2)


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Backward]:
    """-log softmax(logits)[label], the mean over the batch; logits (n, classes), labels (n,) of integers."""
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    right = np.eye(logits.shape[1])[labels]
    return -(log_p * right).sum(1).mean(), lambda grad=1.0: grad * (np.exp(log_p) - right) / len(logits)


CONV1 = ("conv1", partial(conv, stride=4))
CONV2 = ("conv2", partial(conv, pad=2, groups=2))  # two groups: each tower sees its own maps
CONV3 = ("conv3", partial(conv, pad=1))  # the one convolution that sees both towers
CONV4 = ("conv4", partial(conv, pad=1, groups=2))
CONV5 = ("conv5", partial(conv, pad=1, groups=2))
POOL = partial(max_pool, size=3, stride=2)
LRN = partial(lrn, size=5, k=2.0, beta=0.75, towers=2)


def alexnet(params: dict[str, Array], images: Array, labels: Array, keep: float = 0.5) -> Result:
    """The net of the paper's text: LRN after ReLU, its alpha as printed, that is, of the sum.

    params: "conv1.weight" (maps, 3, 11, 11), "conv1.bias", ... "fc8.bias"; images (n, 3, 224, 224), labels (n,); keep:
    the factor of fc6's and fc7's outputs at test time, as dropout in training did not rescale what it kept.
    Returns logits, loss and gradients by name: those of params, and "images".
    """
    norm = partial(LRN, alpha_per_element=1e-4)
    layers_1_and_2 = [CONV1, relu, norm, POOL, CONV2, relu, norm, POOL]
    layers_3_to_5 = [CONV3, relu, CONV4, relu, CONV5, relu, POOL]
    return run([*layers_1_and_2, *layers_3_to_5, *fully_connected(keep)], params, images, labels)


def released_2012(params: dict[str, Array], images: Array, labels: Array, keep: float = 0.5) -> Result:
    """The net of the released code, with the arguments of `alexnet`; 1e-4 is divided by the 5 maps of the window."""
    norm = partial(LRN, alpha_per_element=1e-4 / 5)
    layer_1 = [CONV1, norm, POOL, relu]  # ReLU last: negative responses, too, weaken their neighbours
    layers_2_to_5 = [CONV2, relu, norm, spatial_norm, POOL, CONV3, relu, CONV4, relu, CONV5, POOL, relu]
    return run([*layer_1, *layers_2_to_5, *fully_connected(keep)], params, images, labels)


def fully_connected(keep: float) -> list[Any]:
    """fc6 to fc8, the hidden outputs times `keep`."""

    def weakened(x: Array) -> Out:
        return x * keep, lambda grad: grad * keep

    return [("fc6", full), relu, weakened, ("fc7", full), relu, weakened, ("fc8", full)]


def run(layers: list[Any], params: dict[str, Array], images: Array, labels: Array) -> Result:
    """Forward through these layers and back from the loss; a layer with parameters has a name."""
    x, trail = images, []
    for layer in layers:
        name, function = layer if isinstance(layer, tuple) else (None, layer)
        x, backward = function(x, params[f"{name}.weight"], params[f"{name}.bias"]) if name else function(x)
        trail.append((name, backward))
    loss, backward = cross_entropy(x, labels)
    grad, gradients = backward(), {}
    for name, backward in reversed(trail):
        grad = backward(grad)
        if name:
            grad, gradients[f"{name}.weight"], gradients[f"{name}.bias"] = grad
    return x, loss, gradients | {"images": grad}


def sgd_2012(w: Array, v: Array, g: Array, lr: float, momentum: float, decay: float) -> tuple[Array, Array]:
    """One update, (w, v) to the next: the rate is inside the velocity, which thus outlives a cut of the rate."""
    v = momentum * v - decay * lr * w - lr * g
    return w + v, v
