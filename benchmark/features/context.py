"""What metrics may ask for: where weights lie, the device, and the cache of true features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Context:
    """Options of a scoring run.

    ``inception`` is a file of pytorch-fid's weights (None: looked for), ``lpips`` one of the AlexNet backbone;
    ``cache`` is a folder for the features of true pictures (None: not kept); ``device`` is torch's name.
    """

    inception: Path | None = None
    lpips: Path | None = None
    cache: Path | None = None
    device: str = "cpu"
