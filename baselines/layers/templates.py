"""Template masks: the typical poses among the training people's amodal masks (paper §3.2; spec §3)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ahp_toolkit.core.errors import UserError

_CHUNK = 1024
#: People for each cluster at least, on average (the authors have hundreds): the centre of two or three is nearly their
#: own masks, off which the network reads the answer in training, and nobody's afterwards.
EACH = 20


def fit_templates(
    masks: Tensor, keep: int = 64, clusters: int = 128, size: int = 32, seed: int = 0, each: int = EACH
) -> Tensor:
    """k-means centres of amodal masks, the most populated first: float32 [keep, size, size] in [0, 1].

    The authors use 100 to 150 clusters of 32x32 masks and keep 64. With fewer clusters than ``keep`` they repeat. The
    same masks and seed give the same templates.

    Args:
        masks: bool or 0/1 [N, h, w], the crop frame of the network's input.
        each: people for a cluster at least, on average: with fewer than ``each * clusters`` there are fewer clusters.

    Raises:
        UserError: when there is no mask.
    """
    from sklearn.cluster import KMeans  # seconds to import, and only training needs it

    if masks.ndim != 3 or len(masks) == 0:
        raise UserError(f"templates need amodal masks [N, h, w] of training people, got {list(masks.shape)}")
    small = torch.cat([_shrunk(chunk, size) for chunk in masks.split(_CHUNK)])
    data = small.flatten(1).double().numpy()
    distinct = len(np.unique(data, axis=0))
    means = KMeans(min(clusters, distinct, max(1, len(data) // each)), n_init=1, random_state=seed % 2**32).fit(data)
    counts = np.bincount(means.labels_, minlength=len(means.cluster_centers_))
    order = np.lexsort((*means.cluster_centers_.T, -counts))
    centres = means.cluster_centers_[order].clip(0, 1).astype(np.float32)
    return torch.from_numpy(np.resize(centres, (keep, size * size)).reshape(keep, size, size))


def _shrunk(masks: Tensor, size: int) -> Tensor:
    return F.interpolate(masks.float().unsqueeze(1), size=(size, size), mode="area")[:, 0]


def template_weights(mask: Tensor, templates: Tensor, rule: str = "l2") -> Tensor:
    """How much each template suits a soft mask: float32 or wider [B, K].

    Args:
        mask: refined modal mask [B, 1, H, W] in [0, 1]; resized to the templates' size.
        templates: [K, s, s].
        rule: "l2": 1 / l2 distance (the paper); "softmax": softmax of inner products (the authors' code, which takes
            them at full resolution; here at the templates').
    """
    wide = torch.promote_types(mask.dtype, torch.float32)
    small = F.interpolate(mask.to(wide), size=templates.shape[1:], mode="area").flatten(1)
    flat = templates.flatten(1).to(wide)
    if rule == "softmax":
        with torch.autocast(mask.device.type, enabled=False):  # products of hundreds, whose bfloat16 steps are 1 to 2
            return (small @ flat.t()).softmax(1)
    squared = (small[:, None] - flat[None]).square().sum(2)
    return squared.clamp(min=1e-4).rsqrt()  # a mask that is a template: distance 0.01, not 0
