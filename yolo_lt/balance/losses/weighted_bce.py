"""Weighted binary cross-entropy over all entries: value, gradient and the gradient's sums by class, in one pass.

A batch of YOLO has few positive entries among very many negative ones, 20 million at 1203 classes. So the negatives go
through in chunks that stay in the cache, what a loss asks for is given per class or per entry of the few foreground
anchors, and nothing of the size of the logits is made but their gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import log

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from yolo_lt.balance.losses.targets import Positives

CHUNK = {"cpu": 2**19}  # entries at once: what a cache holds
CHUNK_ELSEWHERE = 2**26  # what keeps a GPU busy


@dataclass
class Terms:
    """What a loss does to binary cross-entropy; None is nothing. All in the dtype of the sum, on the logits' device.

    Attributes:
        positives: Weight of every positive entry, shape (P,).
        negatives: Weight of a negative entry by its class, shape (C,).
        rows: Further weight of the negative entries of the F foreground anchors, expandable to (F, C).
        gamma: The entry's factor |y - p|^gamma by its class, shape (C,).
        scale, shift: The logit is `scale` z + `shift`, a number and shape (C,).
        row_shift: Further shift of the negative entries of the F foreground anchors, shape (F, C).
    """

    positives: Tensor | None = None
    negatives: Tensor | None = None
    rows: Tensor | None = None
    gamma: Tensor | None = None
    scale: float = 1.0
    shift: Tensor | None = None
    row_shift: Tensor | None = None


@dataclass
class RowWeights:
    """Weights of the negative entries, of which few rows differ: those of the images that anchors lie in.

    Attributes:
        rows: Weight per class, shape (R, C), float.
        index: Row of every anchor, shape (B, A), int64.
    """

    rows: Tensor
    index: Tensor


@dataclass
class Sums:
    """What one pass gives.

    Attributes:
        value: The loss, scalar.
        gradient: By the logits, shape (B, A, C); None if it was not asked for.
        positive: |gradient| summed over the positive entries of a class, shape (C,); zeros if it was not asked for.
        negative: |gradient| summed over its negative entries, shape (C,); likewise.
    """

    value: Tensor
    gradient: Tensor | None
    positive: Tensor
    negative: Tensor


def float_dtype(z: Tensor) -> torch.dtype:
    """Float32 or better: under AMP logits arrive in half precision, where sums and powers overflow."""
    return torch.float32 if z.dtype in (torch.float16, torch.bfloat16) else z.dtype


def weighted_bce(
    z: Tensor,
    pos: Positives,
    terms: Terms,
    valid: Tensor | None = None,
    absent: RowWeights | None = None,
    gradient: bool = True,
    sums: bool = False,
) -> Sums:
    """Sum over all entries of v w |y - p|^gamma BCE(x, y), with p = sigmoid(x) and x the scaled and shifted logit.

    Args:
        z: Logits, shape (B, A, C), outside of any graph.
        pos: The positive entries; every other entry has y = 0.
        terms: w, gamma, and what makes x of z.
        valid: v, bool or float, broadcastable to (B, A, C).
        absent: Further weights of the negative entries, by anchor.
        gradient: Whether the gradient is wanted.
        sums: Whether |gradient| is to be summed by class; needs the gradient.
    """
    dtype, (_, anchors, classes) = float_dtype(z), z.shape
    zeros = [torch.zeros(n, dtype=dtype, device=z.device) for n in ((), (classes,), (classes,))]
    grad = torch.empty(z.shape, dtype=dtype, device=z.device) if gradient else None
    out = Sums(zeros[0], grad, zeros[1], zeros[2])
    at, c = pos.index[0] * anchors + pos.index[1], pos.index[2]
    by_row = terms.rows is not None or terms.row_shift is not None
    rows = pos.foreground.flatten().nonzero().squeeze(1) if by_row else at[:0]
    factors = None if terms.rows is None else terms.rows.expand(len(rows), classes)
    valid = None if valid is None else valid.expand(z.shape)
    kept = None if absent is None else (absent.rows.to(z.device, dtype), absent.index.to(z.device).flatten())
    for part, first, last, p, f in _chunks(z.shape, z.device, at, rows):
        x = _shifted(z[part].reshape(-1, classes).to(dtype), terms)
        value, g = _negatives(x, terms, None if grad is None else grad.view(-1, classes)[first:last])
        if terms.row_shift is not None:
            _shift_rows(x, rows[f] - first, terms.row_shift[f], terms, value, g)
        of_anchors = None if kept is None else kept[0].index_select(0, kept[1][first:last])
        for entries in (value,) if g is None else (value, g):
            if valid is not None:
                entries.mul_(valid[part].reshape(-1, classes))
            if of_anchors is not None:
                entries.mul_(of_anchors)
            if factors is not None:
                entries[rows[f] - first] *= factors[f]
            entries[at[p] - first, c[p]] = 0
        out.value += value.sum()
        if sums and g is not None:
            out.negative += g.sum(0)
    value, g = _positives(_shifted(z[pos.index].to(dtype), terms, c), pos, terms)
    if valid is not None:
        value, g = value * valid[pos.index], g * valid[pos.index]
    out.value += value.sum()
    if grad is not None:
        grad[pos.index] = g
    if sums:
        out.positive.index_add_(0, c, g.abs())
    return out


def _chunks(
    shape: torch.Size, device: torch.device, at: Tensor, rows: Tensor
) -> Iterator[tuple[tuple[slice, slice], int, int, slice, slice]]:
    """Whole images, or parts of one, of at most CHUNK entries.

    Yields:
        Slices of images and anchors, first and last of their rows in (B * A, C), and which of the ascending `at` and
        `rows` lie between those two.
    """
    images, anchors, classes = shape
    most = max(1, CHUNK.get(device.type, CHUNK_ELSEWHERE) // classes)
    if anchors <= most:
        step = max(1, most // max(1, anchors))
        parts = [(slice(i, min(i + step, images)), slice(0, anchors)) for i in range(0, images, step)]
    else:
        starts = range(0, anchors, most)
        parts = [(slice(i, i + 1), slice(j, min(j + most, anchors))) for i in range(images) for j in starts]
    firsts = [b.start * anchors + a.start for b, a in parts] + [images * anchors]
    edges = torch.tensor(firsts, device=device)
    inside = [[slice(*pair) for pair in pairwise(torch.searchsorted(x, edges).tolist())] for x in (at, rows)]
    yield from zip(parts, firsts[:-1], firsts[1:], *inside, strict=True)


def _shifted(z: Tensor, terms: Terms, classes: Tensor | slice = slice(None)) -> Tensor:
    """The logits as the loss sees them: of entries (R, C), or (P,) of these `classes`."""
    if terms.shift is not None:
        return torch.add(terms.shift[classes], z, alpha=terms.scale)
    return z if terms.scale == 1 else z * terms.scale


def _shift_rows(x: Tensor, rows: Tensor, shift: Tensor, terms: Terms, value: Tensor, g: Tensor | None) -> None:
    """Compute these rows of `value` and `g` again, for logits that are shifted further."""
    value[rows], gradient = _negatives(x[rows] + shift, terms, None if g is None else torch.empty_like(shift))
    if g is not None:
        g[rows] = gradient


def _negatives(x: Tensor, terms: Terms, into: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Value and gradient of entries (R, C) as if all were negative; the gradient is written `into` if that is given.

    BCE(z, 0) = z - log sigmoid(z) is the very operation of Ultralytics. Not softplus: the two differ by up to a per
    cent where p is 1e-5, and a neutral recipe must give the stock value.
    """
    log_p = logsigmoid(x)
    value = x - log_p
    g = None if into is None else torch.sigmoid(x, out=into)
    weight = terms.negatives
    if terms.gamma is not None:
        if g is not None:  # d/dx p^gamma BCE = p^gamma (gamma (1 - p) BCE + p)
            g.addcmul_(torch.addcmul(value, value, g, value=-1), terms.gamma)
        bits = log_p.mul_(terms.gamma / log(2))  # w p^gamma = 2^(gamma log2 p + log2 w): on CPUs half the cost of exp
        weight = (bits if weight is None else bits.add_(weight.log2())).exp2_()
    if weight is not None:
        for part in (value,) if g is None else (value, g):
            part.mul_(weight)
    return value, g if g is None or terms.scale == 1 else g.mul_(terms.scale)


def _positives(x: Tensor, pos: Positives, terms: Terms) -> tuple[Tensor, Tensor]:
    """Value and gradient of the positive entries, each shape (P,)."""
    value, p = binary_cross_entropy_with_logits(x, pos.y, reduction="none"), x.sigmoid()
    g = p - pos.y
    if terms.gamma is not None:  # d/dx |d|^gamma BCE = |d|^gamma d + gamma |d|^(gamma - 1) sgn(d) p (1 - p) BCE
        gamma, size, sign = terms.gamma[pos.index[2]], g.abs(), g.sign()
        focus = size**gamma
        # where d is 0 and gamma below 1 the power is infinite, though sgn(d) makes the product 0
        slope = gamma * size.clamp_min(torch.finfo(x.dtype).eps) ** (gamma - 1) * sign
        g = focus * g + slope * p * (1 - p) * value
        value = focus * value
    if terms.scale != 1:
        g = g * terms.scale
    return (value, g) if terms.positives is None else (value * terms.positives, g * terms.positives)
