"""What learned metrics need: files of weights, the device, packages, and the cache of true features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Context:
    """Options of a scoring run.

    ``inception``: pytorch-fid's weights, ``lpips``: AlexNet's (None: searched for); ``cache``: folder for the features
    of true pictures (None: no cache); ``device``: torch's name.
    """

    inception: Path | None = None
    lpips: Path | None = None
    cache: Path | None = None
    device: str = "cpu"
