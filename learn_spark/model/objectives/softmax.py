"""Next-item losses: softmax over sampled negatives or over the whole catalogue."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED_SCORES = 1 << 20  # 4 MiB in fp32: what is in cache is not read from memory again
GPU_SCORES = 1 << 26
FEWEST_ROWS = 64


def sampled_softmax_loss(
    user: Tensor,
    positive: Tensor,
    negative: Tensor,
    positive_ids: Tensor,
    negative_ids: Tensor,
    *,
    temperature: float | Tensor,
    log_q_positive: Tensor | None = None,
    log_q_negative: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """The mean over positions of -log(e^s+ / (e^s+ + sum of e^s over the negatives)), a scalar.

    Shapes: ``user`` and ``positive`` [P, D]; ``negative`` [M, D] shared by all positions, or [P, M, D]; the ids
    [P], and [M] or [P, M]; s = inner product / temperature. A negative that is the position's positive is left out.
    ``weight`` [P] makes the mean a weighted one.

    ``log_q`` is the log of the probability of one draw, subtracted from the score before the softmax; None leaves
    that side as it is. Uniform negatives need none: all have the same (RecTools and eSASRec, arXiv 2508.06450, give
    none). In-batch negatives are drawn by popularity and need it: Yi et al. (RecSys 2019) subtract it from all scores
    of the batch, the positive's too; Khrylchenko et al. (RecSys 2025) argue that the positive was not drawn and leave
    it as it is, with the log of the expected count (log q + log M) on the negatives. Mixed negatives are both kinds
    in one ``negative``, each with its own log q.

    Raises ValueError for shapes that do not fit and a temperature <= 0.
    """
    positions, width = user.shape
    shared = negative.dim() == 2
    drawn = negative.shape[:1] if shared else (positions, *negative.shape[1:2])
    shapes = {
        "positive": (positive, (positions, width)),
        "negative": (negative, (*drawn, width)),
        "positive_ids": (positive_ids, (positions,)),
        "negative_ids": (negative_ids, tuple(drawn)),
        "log_q_positive": (log_q_positive, (positions,)),
        "log_q_negative": (log_q_negative, tuple(drawn)),
        "weight": (weight, (positions,)),
    }
    _check(user, shapes, temperature)
    exact = torch.promote_types(user.dtype, torch.float32)
    score = (user * positive).sum(dim=1).to(exact) / temperature  # [P]
    scores = user @ negative.T if shared else torch.einsum("pd,pmd->pm", user, negative)
    scores = scores.to(exact) / temperature  # [P, M]
    if log_q_positive is not None:
        score = score - log_q_positive
    if log_q_negative is not None:
        scores = scores - log_q_negative
    # The lowest finite number, not -inf: where a row has no negatives, -inf would make the gradient NaN.
    scores = scores.masked_fill(negative_ids == positive_ids.unsqueeze(1), torch.finfo(exact).min)
    return _mean(F.softplus(torch.logsumexp(scores, dim=1) - score), weight)


def full_softmax_loss(
    user: Tensor,
    catalogue: Tensor,
    positive_positions: Tensor,
    *,
    temperature: float | Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The mean over positions of the exact cross-entropy over the whole catalogue, a scalar.

    Shapes: ``user`` [P, D], ``catalogue`` [N, D], ``positive_positions`` [P] int64, rows of the catalogue; scores
    are inner products / temperature, plus ``bias`` [N], which learns nothing; ``weight`` [P] makes the mean a weighted
    one. A bias of a * log(share of the events) is logit adjustment (Menon et al., ICLR 2021): ranked without it, the
    vectors hold what an item has beyond its popularity. The gradient is computed with the loss, ``chunk`` positions at
    a time, so that no more than [chunk, N] scores exist at once, and none is computed twice; by default about 1 M
    scores, 64 M on a GPU, of 64 positions at least. A second derivative is refused. Under autocast the three matrix
    products are made in its precision; scores, softmax and sums stay in fp32.

    Raises ValueError for shapes that do not fit, a temperature <= 0, positions outside the catalogue, chunk below 1.
    """
    positions, width = user.shape
    rows = catalogue.shape[0]
    shapes = {
        "catalogue": (catalogue, (rows, width)),
        "positive_positions": (positive_positions, (positions,)),
        "weight": (weight, (positions,)),
        "bias": (bias, (rows,)),
    }
    _check(user, shapes, temperature)
    if positions and (int(positive_positions.min()) < 0 or int(positive_positions.max()) >= rows):
        raise ValueError(
            f"positive_positions reach from {int(positive_positions.min())} to {int(positive_positions.max())}, "
            f"but the catalogue has the rows 0..{rows - 1}"
        )
    if chunk is None:
        chunk = max(FEWEST_ROWS, (GPU_SCORES if user.is_cuda else CACHED_SCORES) // max(rows, 1))
    if chunk < 1:
        raise ValueError(f"chunk {chunk} must be at least 1")
    heat = torch.as_tensor(temperature, dtype=torch.promote_types(user.dtype, torch.float32), device=user.device)
    share = torch.ones_like(user[:, 0], dtype=heat.dtype) if weight is None else weight.to(heat.dtype)
    share = share / share.sum().clamp(min=torch.finfo(heat.dtype).tiny)
    loss: Tensor = _FullSoftmax.apply(
        user,
        catalogue,
        heat,
        positive_positions,
        share.detach(),
        None if bias is None else bias.detach().to(heat.dtype),
        chunk,
        torch.is_grad_enabled(),
    )
    return loss


class _FullSoftmax(torch.autograd.Function):
    """The sum over positions of share * (logsumexp of the scores - the positive's score), with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        catalogue: Tensor,
        heat: Tensor,
        positive: Tensor,
        share: Tensor,
        bias: Tensor | None,
        chunk: int,
        differentiate: bool,
    ) -> Tensor:
        for_user, for_catalogue, for_heat = (differentiate and needed for needed in ctx.needs_input_grad[:3])
        kind = user.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else heat.dtype
        with torch.autocast(kind, enabled=False):
            users, items = (user / heat).to(low), catalogue.to(low)
            loss = heat.new_zeros(())
            pulls = torch.empty_like(users) if for_user or for_heat else None  # [P, D]
            item_gradient = torch.zeros_like(items, dtype=heat.dtype) if for_catalogue else None  # [N, D]
            products = users.new_empty(min(chunk, len(users)), len(items))
            scores = products if low == heat.dtype else products.to(heat.dtype)
            for start in range(0, len(users), chunk):
                part = slice(start, start + chunk)
                some, target, portion = users[part], positive[part].unsqueeze(1), share[part].unsqueeze(1)
                product = torch.mm(some, items.T, out=products[: len(some)])
                score = product if low == heat.dtype else scores[: len(some)].copy_(product)
                if bias is not None:
                    score += bias
                top, own = score.amax(dim=1), score.gather(1, target).squeeze(1)
                softmax = torch.softmax(score, dim=1, out=score)
                # The softmax of the largest score s is e^s / sum, at least 1 / N: the sum without another pass.
                loss += ((top - softmax.amax(dim=1).log() - own) * share[part]).sum()
                if not (for_user or for_catalogue or for_heat):
                    continue
                # In place of the scores: their gradient, share * (softmax - 1 at the positive).
                slope = softmax.scatter_add_(1, target, -torch.ones_like(portion)).mul_(portion)
                slope = slope if low == heat.dtype else product.copy_(slope)
                if pulls is not None:
                    torch.mm(slope, items, out=pulls[part])
                if item_gradient is not None and low == heat.dtype:
                    item_gradient.addmm_(slope.T, some)
                elif item_gradient is not None:
                    item_gradient += slope.T @ some  # chunks are summed in fp32
            user_gradient = (pulls / heat).to(user.dtype) if for_user and pulls is not None else None
            heat_gradient = -(users * pulls).sum(dtype=heat.dtype) / heat if for_heat and pulls is not None else None
        ctx.gradients = (user_gradient, None if item_gradient is None else item_gradient.to(catalogue.dtype))
        ctx.heat_gradient = heat_gradient
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = (*ctx.gradients, ctx.heat_gradient)
        return (*(None if part is None else part * gradient.to(part.dtype) for part in parts), *[None] * 5)


def _mean(terms: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return terms.sum() / max(len(terms), 1)
    return (terms * weight).sum() / weight.sum().clamp(min=torch.finfo(terms.dtype).tiny)


def _check(user: Tensor, shapes: dict[str, tuple[Tensor | None, tuple[int, ...]]], temperature: float | Tensor) -> None:
    for name, (tensor, expected) in shapes.items():
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(
                f"{name} has the shape {tuple(tensor.shape)}, expected {expected} beside user {tuple(user.shape)}"
            )
    heat = float(temperature.detach() if isinstance(temperature, Tensor) else temperature)
    if not heat > 0.0:
        raise ValueError(f"temperature {heat} must be above 0")
