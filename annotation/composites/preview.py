"""How a proposal looks, around its human."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from ahp_toolkit.core.crops import crop_image, square_around
from ahp_toolkit.decisions.composites import Composite
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.storage.build_folder import Build
from ahp_toolkit.storage.images import Rgb


def preview(root: Path, composite: Composite, size: int = 512) -> Rgb:
    """RGB uint8 [size, size, 3]: the composite around its human, as the sample would look.

    Raises:
        ImageError: when a photo cannot be read.
    """
    render = _renderer(str(root))
    photo = render.photo(composite.human.image)
    pasted = render.paste(photo, composite.human.mask, [(composite.occluder, composite.placement)])
    return np.asarray(crop_image(pasted.image, square_around(composite.human.mask.box, 1.8), size), np.uint8)


@lru_cache(maxsize=2)
def _renderer(root: str) -> Renderer:
    return Renderer(Build(Path(root)).data_roots)
