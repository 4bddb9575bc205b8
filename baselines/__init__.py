"""Models: the paper's two networks with every ablation, and the baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ahp_toolkit.core.masks import Bool2D
    from ahp_toolkit.storage.images import Rgb
    from baselines.inference.complete import Completed
    from baselines.training.runs import Loaded

__all__ = ["complete", "load"]


def load(run: str | Path, device: str = "cpu") -> Loaded:
    """The trained model of a run folder or a model file, in eval mode on ``device``: ``.net``, ``.name``, ``.task``.

    Raises:
        UserError: when the file is missing, damaged, or of another version of the model.
    """
    from baselines.training.runs import load_model

    return load_model(Path(run), device=device)


def complete(
    photo: Rgb, mask: Bool2D, *, mask_run: str | Path, content_run: str | Path, device: str = "auto"
) -> Completed:
    """Complete one person of a photograph.

    Args:
        photo: RGB uint8 [H, W, 3].
        mask: bool [H, W], what is visible of the person.
        mask_run, content_run: the trained models of both stages.

    Returns:
        ``modal``, ``amodal`` and ``invisible``, bool [H, W], and ``recovered``, RGB uint8 [H, W, 3]; ``write(folder)``
        writes them as PNG.

    Raises:
        UserError: when a run is missing or for the other task, or the mask is empty or of another size.
    """
    from baselines.inference.complete import Completer

    return Completer(Path(mask_run), Path(content_run), device)(photo, mask=mask)
