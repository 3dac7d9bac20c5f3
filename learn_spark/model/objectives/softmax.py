"""Next-item losses: softmax over sampled negatives, or over the whole catalogue."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from learn_spark.model.objectives.checks import check_shapes, check_temperature

CACHED_SCORES = 1 << 20  # 4 MiB in fp32, which fits a processor's cache
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

    ``user`` and ``positive`` [P, D]; ``negative`` [M, D] shared by all positions, or [P, M, D]; the ids [P], and [M] or
    [P, M]. A score s is inner product / temperature. A negative that is the position's positive is left out. With
    ``weight`` [P] the mean is weighted.

    ``log_q`` is the log of the probability of one draw, subtracted from the score before the softmax; None leaves that
    side unchanged. Uniform negatives need none, because all have the same (RecTools and eSASRec, arXiv 2508.06450, use
    none). In-batch negatives are drawn by popularity and need it. Yi et al. (RecSys 2019) subtract it from all scores
    of the batch, the positive's too. Khrylchenko et al. (RecSys 2025) argue that the positive was not drawn; they leave
    it unchanged and subtract the log of the expected count (log q + log M) from the negatives. Mixed negatives are both
    kinds in one ``negative``, each with its log q.

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
    check_shapes(user, shapes)
    check_temperature(temperature)
    dtype = torch.promote_types(user.dtype, torch.float32)
    positive_score = (user * positive).sum(dim=1).to(dtype) / temperature  # [P]
    scores = user @ negative.T if shared else torch.einsum("pd,pmd->pm", user, negative)
    scores = scores.to(dtype) / temperature  # [P, M]
    if log_q_positive is not None:
        positive_score = positive_score - log_q_positive
    if log_q_negative is not None:
        scores = scores - log_q_negative
    # The lowest finite number, not -inf: where a row has no negatives, -inf would make the gradient NaN.
    scores = scores.masked_fill(negative_ids == positive_ids.unsqueeze(1), torch.finfo(dtype).min)
    return _mean(F.softplus(torch.logsumexp(scores, dim=1) - positive_score), weight)


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

    ``user`` [P, D], ``catalogue`` [N, D], ``positive_positions`` [P] int64 rows of the catalogue. Scores are inner
    products / temperature, plus ``bias`` [N], which gets no gradient. With ``weight`` [P] the mean is weighted. A bias
    of a * log(share of the events) is logit adjustment (Menon et al., ICLR 2021): ranked without the bias, the vectors
    express preference beyond popularity.

    The gradient is computed with the loss, ``chunk`` positions at a time, so that at most [chunk, N] scores exist at
    once and none is computed twice. By default a chunk has about 1 M scores, 64 M on a GPU, and at least 64 positions.
    A second derivative raises an error. Under autocast the three matrix products use its precision; scores, softmax and
    sums are fp32.

    Raises ValueError for shapes that do not fit, a temperature <= 0, positions outside the catalogue, and chunk below
    1.
    """
    positions, width = user.shape
    rows = catalogue.shape[0]
    shapes = {
        "catalogue": (catalogue, (rows, width)),
        "positive_positions": (positive_positions, (positions,)),
        "weight": (weight, (positions,)),
        "bias": (bias, (rows,)),
    }
    check_shapes(user, shapes)
    check_temperature(temperature)
    if positions and (int(positive_positions.min()) < 0 or int(positive_positions.max()) >= rows):
        raise ValueError(
            f"positive_positions are {int(positive_positions.min())}..{int(positive_positions.max())}, outside the "
            f"catalogue's rows 0..{rows - 1}"
        )
    if chunk is None:
        chunk = max(FEWEST_ROWS, (GPU_SCORES if user.is_cuda else CACHED_SCORES) // max(rows, 1))
    if chunk < 1:
        raise ValueError(f"chunk {chunk} must be at least 1")
    divisor = torch.as_tensor(temperature, dtype=torch.promote_types(user.dtype, torch.float32), device=user.device)
    share = torch.ones_like(user[:, 0], dtype=divisor.dtype) if weight is None else weight.to(divisor.dtype)
    share = share / share.sum().clamp(min=torch.finfo(divisor.dtype).tiny)
    loss: Tensor = _FullSoftmax.apply(
        user,
        catalogue,
        divisor,
        positive_positions,
        share.detach(),
        None if bias is None else bias.detach().to(divisor.dtype),
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
        divisor: Tensor,
        positive: Tensor,
        share: Tensor,
        bias: Tensor | None,
        chunk: int,
        differentiate: bool,
    ) -> Tensor:
        for_user, for_catalogue, for_divisor = (differentiate and needs for needs in ctx.needs_input_grad[:3])
        device_type = user.device.type
        product_dtype = (
            torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else divisor.dtype
        )
        with torch.autocast(device_type, enabled=False):
            users, items = (user / divisor).to(product_dtype), catalogue.to(product_dtype)
            loss = divisor.new_zeros(())
            weighted_items = torch.empty_like(users) if for_user or for_divisor else None  # [P, D]
            item_gradient = torch.zeros_like(items, dtype=divisor.dtype) if for_catalogue else None  # [N, D]
            products = users.new_empty(min(chunk, len(users)), len(items))
            scores = products if product_dtype == divisor.dtype else products.to(divisor.dtype)
            for start in range(0, len(users), chunk):
                part = slice(start, start + chunk)
                vectors, target, row_share = users[part], positive[part].unsqueeze(1), share[part].unsqueeze(1)
                product = torch.mm(vectors, items.T, out=products[: len(vectors)])
                score = product if product_dtype == divisor.dtype else scores[: len(vectors)].copy_(product)
                if bias is not None:
                    score += bias
                highest, positive_score = score.amax(dim=1), score.gather(1, target).squeeze(1)
                softmax = torch.softmax(score, dim=1, out=score)
                # The softmax of the largest score s is e^s / sum, at least 1 / N; it gives the sum without a pass.
                loss += ((highest - softmax.amax(dim=1).log() - positive_score) * share[part]).sum()
                if not (for_user or for_catalogue or for_divisor):
                    continue
                # The gradient of the scores, share * (softmax - 1 at the positive), overwrites them.
                score_gradient = softmax.scatter_add_(1, target, -torch.ones_like(row_share)).mul_(row_share)
                score_gradient = score_gradient if product_dtype == divisor.dtype else product.copy_(score_gradient)
                if weighted_items is not None:
                    torch.mm(score_gradient, items, out=weighted_items[part])
                if item_gradient is not None and product_dtype == divisor.dtype:
                    item_gradient.addmm_(score_gradient.T, vectors)
                elif item_gradient is not None:
                    item_gradient += score_gradient.T @ vectors  # chunks are summed in fp32
            user_gradient = (
                (weighted_items / divisor).to(user.dtype) if for_user and weighted_items is not None else None
            )
            divisor_gradient = (
                -(users * weighted_items).sum(dtype=divisor.dtype) / divisor
                if for_divisor and weighted_items is not None
                else None
            )
        ctx.gradients = (user_gradient, None if item_gradient is None else item_gradient.to(catalogue.dtype))
        ctx.divisor_gradient = divisor_gradient
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = (*ctx.gradients, ctx.divisor_gradient)
        return (*(None if part is None else part * gradient.to(part.dtype) for part in parts), *[None] * 5)


def _mean(terms: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return terms.sum() / max(len(terms), 1)
    return (terms * weight).sum() / weight.sum().clamp(min=torch.finfo(terms.dtype).tiny)
