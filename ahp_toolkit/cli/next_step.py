"""What to do next when a build ended well and kept nobody."""

from __future__ import annotations

from ahp_toolkit.build.flow import Options
from ahp_toolkit.runtime.stage import finished


def next_step(o: Options, stop_after: str | None = None) -> str:
    """One line, or '' where there is nothing to say: people were kept, or the build was not to come that far."""
    if stop_after == "harvest":
        return ""
    masked = finished(o.out / "segment")
    if masked is not None and not masked.counts["out"]:
        return _of_nobody_masked(masked.dropped)
    kept = finished(o.out / "review") if stop_after in (None, "review", "splits") else None
    if kept is None or any(n for k, n in kept.counts.items() if k.startswith("preserve/")):
        return ""
    undecided = any(k.endswith("undecided") for k in kept.dropped)
    return f"next: ahp review --root {o.out}, then the same command again: nobody was kept" if undecided else ""


def _of_nobody_masked(dropped: dict[str, int]) -> str:
    """What is said when no candidate has a mask."""
    if not any(k.endswith("no_mask") for k in dropped):
        return ""
    return "next: give --segmenter, such as mask_rcnn (see ahp doctor): the sources have boxes only, no masks"
