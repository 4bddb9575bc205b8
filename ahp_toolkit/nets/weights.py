"""Which weights a plug-in was asked for, without importing torch: for cache keys of stages and of processes."""

from __future__ import annotations

from pathlib import Path

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError


def weights_key(weights: str | None) -> str:
    """Weights by content where they are a file or a folder, else by name (None: the published ones)."""
    path = Path(weights or "")
    if weights and path.is_file():
        return hashing.digest_file(path)
    if weights and path.is_dir():
        return hashing.digest_files(sorted(p for p in path.iterdir() if p.is_file()))
    return weights or "published"


def weights_stamp(weights: str | None) -> str:
    """Changes when a file of weights is replaced, so that a process does not go on with the old ones."""
    path = Path(weights or "")
    return str(hashing.stamp([path])) if weights and path.is_file() else ""


def cached_on_hub(repo_id: str, filename: str = "model.safetensors", revision: str | None = None) -> bool:
    """Whether a file of the Hugging Face hub lies in the local cache; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo_id, filename, revision=revision), str)


def want_pretrained(option: str, in_cache: bool) -> bool:
    """Resolve ``auto`` (only what is in the local cache), ``yes`` (fetch it) and ``no``.

    Raises:
        UserError: for another word.
    """
    if option not in ("auto", "yes", "no"):
        raise UserError(f"expected pretrained auto, yes or no, got {option!r}")
    return option == "yes" or (option == "auto" and in_cache)
