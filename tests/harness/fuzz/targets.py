"""Every parser that touches foreign bytes, by name."""

from __future__ import annotations

from tests.harness.fuzz.check import Target
from tests.harness.fuzz.targets_archives import Tar, Zip
from tests.harness.fuzz.targets_core import Decisions, Imports, Json, Masks, Pictures, Submissions
from tests.harness.fuzz.targets_sources import SOURCE_TARGETS, Harvest
from tests.harness.fuzz.targets_wires import Checkpoints, CommandLine

_MORE = (Submissions, Pictures, Masks, Decisions, Imports, Json, Checkpoints, CommandLine, Harvest, Zip, Tar)
TARGETS: dict[str, type[Target]] = {t.name: t for t in (*SOURCE_TARGETS, *_MORE)}
