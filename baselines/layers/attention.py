"""Attention over all positions of a feature map without ever holding the N x N matrix.

`attend` is exact (to rounding) and unscaled, softmax(Q K^T) V, over chosen queries and chosen keys. On the CPU it runs
over blocks of rows and computes each block again in the backward pass from the saved log-sum-exp, and only for the
positions that a mask leaves in; on a GPU it is torch's scaled_dot_product_attention, with the mask as a bias on the
keys, so that shapes stay fixed. `pairwise` is the paper's PGA relation (eq. 6) and the supplement's two-way form.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Backend = Literal["auto", "blocked", "sdpa"]
Form = Literal["eq6", "two_way", "listing"]
_BLOCK_ELEMENTS = 1 << 19  # scores held at once: 2 MiB of float32, which stays in a core's cache


class _Blocked(torch.autograd.Function):
    """softmax(q k^T) v for q [N, d], k [M, d], v [M, c], in blocks of rows; M > 0.

    Log-sum-exp and delta are float32 or wider, and what is large in a product cancels within it: in bfloat16 a score of
    20 is known to .06 only, its distance to the largest much better.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(q.shape[0], v.shape[1])
        wide = torch.promote_types(q.dtype, torch.float32)
        norm = q.new_empty(q.shape[0], 1, dtype=wide)
        kt, ones = k.t(), torch.cat([k, k.new_ones(k.shape[0], 1)], 1).t()
        for rows, scores in _blocks(q, k):
            torch.mm(q[rows], kt, out=scores)
            top = scores.amax(1, keepdim=True)
            if wide == q.dtype:
                scores.sub_(top)
            else:  # anew, less the largest before it is rounded
                torch.mm(torch.cat([q[rows], -top], 1), ones, out=scores)
            total = scores.exp_().sum(1, keepdim=True, dtype=wide)
            out[rows] = torch.mm(scores, v).div_(total)
            norm[rows] = total.log_().add_(top)
        ctx.save_for_backward(q, k, v, out, norm)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out, norm = ctx.saved_tensors
        grad = grads[0].contiguous()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        # log-sum-exp and delta ride along as one more column, so that no pass over the block subtracts them
        delta = (grad.to(norm.dtype) * out).sum(1, keepdim=True)
        norms, deltas = _columns(-norm, q.dtype), _columns(-delta, q.dtype)
        one = k.new_ones(k.shape[0], norms.shape[1])
        qn, kt = torch.cat([q, norms], 1), torch.cat([k, one], 1).t()
        gd, vt = torch.cat([grad, deltas], 1), torch.cat([v, one], 1).t()
        spare = q.new_empty(0)
        for rows, p in _blocks(q, k):
            torch.mm(qn[rows], kt, out=p)
            p.exp_()
            dv.addmm_(p.t(), grad[rows])
            if spare.shape != p.shape:
                spare = torch.empty_like(p)
            torch.mm(gd[rows], vt, out=spare)
            p.mul_(spare)
            torch.mm(p, k, out=dq[rows])
            dk.addmm_(p.t(), q[rows])
        return dq, dk, dv


def _columns(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, 1] in columns of ``dtype`` whose sum it is: one where that holds it, else it and what rounding left."""
    if x.dtype == dtype:
        return x
    high = x.to(dtype)
    return torch.cat([high, (x - high).to(dtype)], 1)


def _blocks(q: Tensor, k: Tensor) -> Any:
    """Row slices of q and, for each, the same scratch matrix [rows, M]."""
    n, m = q.shape[0], k.shape[0]
    step = max(1, min(n, _BLOCK_ELEMENTS // m))
    scratch = q.new_empty(step, m)
    for start in range(0, n, step):
        stop = min(start + step, n)
        yield slice(start, stop), scratch[: stop - start]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Tensor | None = None,
    keys: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """softmax(Q K^T) V, no scale, exact, with memory linear in the number of positions.

    Args:
        query: [B, N, d]; key: [B, M, d]; value: [B, M, c].
        queries: bool [B, N]: rows to compute, the others are 0; None: all.
        keys: bool [B, M]: what the softmax runs over; a sample without any gives 0; None: all.
        backend: "auto" takes "blocked" on the CPU and "sdpa" elsewhere.

    Returns:
        [B, N, c].
    """
    if backend == "sdpa" or (backend == "auto" and not _by_blocks(query)):
        return _sdpa(query, key, value, queries, keys)
    return torch.stack(
        [
            _one(query[b], key[b], value[b], None if queries is None else queries[b], None if keys is None else keys[b])
            for b in range(query.shape[0])
        ]
    )


def _by_blocks(query: Tensor) -> bool:
    """Whether ``auto`` chooses positions, which saves a CPU work; a GPU gets one shape whatever the masks say."""
    return query.device.type == "cpu"


def _one(q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, keys: Tensor | None) -> Tensor:
    if keys is not None:
        k, v = k[keys], v[keys]
    if k.shape[0] == 0:
        return q.new_zeros(q.shape[0], v.shape[1]) + 0 * (q.sum() + k.sum() + v.sum())  # finite, still in the graph
    k, v = k.contiguous(), v.contiguous()
    if rows is None:
        return _Blocked.apply(q.contiguous(), k, v)
    index = rows.nonzero()[:, 0]
    out = q.new_zeros(q.shape[0], v.shape[1])
    return out.index_copy(0, index, _Blocked.apply(q[index], k, v))


def _sdpa(q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, keys: Tensor | None) -> Tensor:
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
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor, invisible: Tensor, form: Form = "eq6", backend: Backend = "auto"
) -> list[Tensor]:
    """What PGA's relation R = q k^T gathers, per direction of its softmax.

    Args:
        q: K_vis [B, N, d], of which the visible rows count; k: K_amo [B, N, d], of which the invisible ones do.
        v: [B, N, c].
        visible: bool [B, N]; invisible: bool [B, N].
        form: "eq6": for each invisible position, softmax over the visible ones (dim 0 of R), 0 elsewhere; "two_way":
            that, and for each visible position the softmax over the invisible ones; "listing": both directions
            without masks, as the supplement's listing 1 has it.

    Returns:
        One or two [B, N, c]. R is not symmetric: each direction has normalisers of its own.
    """
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
