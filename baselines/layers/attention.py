"""Attention over chosen positions of a feature map, by torch's scaled_dot_product_attention.

`attend` is unscaled, softmax(Q K^T) V, over chosen queries and chosen keys. A CPU computes the chosen positions alone
(with 6 % of the queries and 30 % of the keys a fortieth of the time at 64x64 positions); a GPU gets one shape whatever
the masks say, with the mask as a bias on the keys. `pairwise` is the paper's PGA relation (eq. 6) and the supplement's
two-way form.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Backend = Literal["auto", "picked", "static"]
Form = Literal["eq6", "two_way", "listing"]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Tensor | None = None,
    keys: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """softmax(Q K^T) V, no scale.

    Args:
        query: [B, N, d]; key: [B, M, d]; value: [B, M, c].
        queries: bool [B, N]: rows to compute, the others are 0; None: all.
        keys: bool [B, M]: what the softmax runs over; a sample without any gives 0; None: all.
        backend: "auto" takes "picked" on the CPU and "static" elsewhere.

    Returns:
        [B, N, c].
    """
    if backend == "static" or (backend == "auto" and not _picks(query)):
        return _static(query, key, value, queries, keys)
    none = [None] * len(query)
    masks = zip(none if queries is None else queries, none if keys is None else keys, strict=True)
    return torch.stack([_picked(query[b], key[b], value[b], *m) for b, m in enumerate(masks)])


def _picks(query: Tensor) -> bool:
    """Whether ``auto`` chooses positions."""
    return query.device.type == "cpu"


def _picked(q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, keys: Tensor | None) -> Tensor:
    if keys is not None:
        k, v = k[keys], v[keys]
    if k.shape[0] == 0:
        return q.new_zeros(q.shape[0], v.shape[1]) + 0 * (q.sum() + k.sum() + v.sum())  # finite, still in the graph
    index = None if rows is None else rows.nonzero()[:, 0]
    chosen = q if index is None else q[index]
    found = F.scaled_dot_product_attention(chosen[None, None], k[None, None], v[None, None], scale=1.0)[0, 0]
    return found if index is None else q.new_zeros(q.shape[0], v.shape[1]).index_copy(0, index, found)


def _static(q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, keys: Tensor | None) -> Tensor:
    c = v.shape[2]
    wide = -(-max(q.shape[2], c) // 8) * 8  # one head width for all, a multiple of 8: what fused kernels take
    q, k, v = (F.pad(t, (0, wide - t.shape[2])).unsqueeze(1) for t in (q, k, v))
    bias, some = None, None
    if keys is not None:
        some = keys.any(1, keepdim=True)
        # a sample without keys attends to all of them, and is then set to 0: no NaN in either pass
        bias = torch.zeros(keys.shape, dtype=q.dtype, device=q.device).masked_fill(~(keys | ~some), float("-inf"))
        bias = bias[:, None, None, :].expand(-1, 1, q.shape[2], -1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)[:, 0, :, :c]
    if some is not None:
        out = out * some[:, :, None]
    return out if rows is None else out * rows[:, :, None]


def pairwise(
    q: Tensor, k: Tensor, v: Tensor, masks: tuple[Tensor, Tensor], form: Form = "eq6", backend: Backend = "auto"
) -> list[Tensor]:
    """What PGA's relation R = q k^T gathers, per direction of its softmax.

    Args:
        q: K_vis [B, N, d], of which the visible rows count; k: K_amo [B, N, d], of which the invisible ones do.
        v: [B, N, c].
        masks: which positions are visible and which invisible, each bool [B, N].
        form: "eq6": for each invisible position, softmax over the visible ones (dim 0 of R), 0 elsewhere; "two_way":
            that, and for each visible position the softmax over the invisible ones; "listing": both directions
            without masks, as the supplement's listing 1 has it.

    Returns:
        One or two [B, N, c]. R is not symmetric: each direction has normalisers of its own.
    """
    visible, invisible = masks
    if form == "listing":
        return [attend(k, q, v, backend=backend), attend(q, k, v, backend=backend)]
    found = [attend(k, q, v, invisible, visible, backend)]
    if form == "two_way":
        found.append(attend(q, k, v, visible, invisible, backend))
    return found


class ContextualAttention(nn.Module):
    """Contextual attention (Yu et al. 2018, §4.1; used by deepfillv2): the hole is rebuilt of patches of what is known.

    3x3 patches are compared by cosine similarity at half resolution, softmax with ``sharpness``, then the 4x4 patches
    at full resolution are pasted and their overlaps averaged. ``fuse`` lets neighbouring matches support each other.
    """

    def __init__(self, sharpness: float = 10.0, fuse: bool = True) -> None:
        super().__init__()
        self.sharpness, self.fuse = sharpness, fuse

    def forward(self, x: Tensor, hole: Tensor) -> Tensor:
        """Feature [B, C, H, W] and hole float 0/1 [B, 1, H, W] (1: to be filled) to a feature [B, C, H, W]."""
        h, w = x.shape[2] // 2, x.shape[3] // 2
        small = x[:, :, ::2, ::2]
        patches = F.unfold(small, 3, padding=1)
        norm = patches.float().square().sum(1, keepdim=True).sqrt().clamp(min=1e-4).to(patches.dtype)
        scores = patches.transpose(1, 2) @ (patches / norm)  # [B, asked, offered]
        if self.fuse:
            scores = _fuse(scores, h, w)
        known = F.unfold(F.max_pool2d(hole, 2).to(x.dtype), 3, padding=1).amax(1) == 0  # [B, offered]
        weights = self._softmax(scores, known)
        pasted = weights @ F.unfold(x, 4, padding=1, stride=2).transpose(1, 2)
        return F.fold(pasted.transpose(1, 2), x.shape[2:], 4, padding=1, stride=2) / _overlaps(x)

    def _softmax(self, scores: Tensor, known: Tensor) -> Tensor:
        some = known.any(1)[:, None, None]
        allowed = known[:, None, :] | ~some
        return (scores * self.sharpness).masked_fill(~allowed, float("-inf")).softmax(2) * some


def _overlaps(x: Tensor) -> Tensor:
    """How many 4x4 patches of stride 2 cover each position."""
    one = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    return F.fold(F.unfold(one, 4, padding=1, stride=2), x.shape[2:], 4, padding=1, stride=2)


def _fuse(scores: Tensor, h: int, w: int) -> Tensor:
    """Add to each match those of the neighbours along rows, then along columns (both shifted alike)."""
    b, n, m = scores.shape
    scores = _diagonal(scores)
    scores = scores.view(b, h, w, h, w).permute(0, 2, 1, 4, 3).reshape(b, n, m)
    scores = _diagonal(scores)
    return scores.view(b, w, h, w, h).permute(0, 2, 1, 4, 3).reshape(b, n, m)


def _diagonal(s: Tensor) -> Tensor:
    """s[i, j] + s[i + 1, j + 1] + s[i - 1, j - 1], zero outside."""
    after = F.pad(s[:, 1:, 1:], (0, 1, 0, 1))
    before = F.pad(s[:, :-1, :-1], (1, 0, 1, 0))
    return s + after + before
