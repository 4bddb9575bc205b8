"""STAGE report: the build's page with its tables and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahp_toolkit.core import hashing
from ahp_toolkit.core.records import SPLITS, Sample
from ahp_toolkit.decisions.log import logs_of
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.engines import Engine
from ahp_toolkit.runtime.stage import Result
from ahp_toolkit.storage import files
from ahp_toolkit.storage.build_folder import Build


@dataclass(frozen=True)
class Report:
    """The step; ``decisions`` are the logs that the build was given beside its own.

    ``merge`` makes one decision of several reviewers'.
    """

    root: Path
    seed: int
    merge: Merge
    decisions: tuple[Path, ...] = ()
    name: str = "report"
    total: int | None = 1

    def up_to_date(self) -> bool:
        """Whether the page was made from the tables that are there."""
        page, mark = self.root / "report" / "index.html", self.root / "report" / "made.json"
        return page.exists() and files.read_sealed(mark) == self._key() | {"page": hashing.digest_file(page)}

    def begun(self) -> bool:
        """No: a page is made at once."""
        return False

    def run(self, engine: Engine, quiet: bool = False, again: bool = False) -> Result:
        """Make the page unless it is up to date."""
        fresh = again or not self.up_to_date()
        if fresh:
            self.make()
        return Result(self.name, self.root / "report", {}, {}, "", fresh)

    def make(self) -> Path:
        """Make the page and return it."""
        files.forget_unfinished(self.root / "report", deep=True)
        from ahp_toolkit.decisions.status import status_html
        from ahp_toolkit.report.page import write_report

        review = status_html(self.root, self.merge, logs=self.decisions) if self.decisions or logs_of(self.root) else ""
        made = write_report(self.root, render=renderer_of(self.root), seed=self.seed, review=review)
        mark = self._key() | {"page": hashing.digest_file(made)}
        files.write_bytes(self.root / "report" / "made.json", files.sealed(mark))
        return made

    def _key(self) -> dict[str, Any]:
        """All that the page is made of, as digests."""
        from ahp_toolkit.report import page

        stages = sorted(self.root.glob("*/stage.json")) + sorted(self.root.glob("splits/*/stage.json"))
        logs = dict.fromkeys(p.resolve() for p in (*self.decisions, *logs_of(self.root)))
        return {
            "seed": self.seed,
            "stages": [[str(p.relative_to(self.root)), files.read_json(p)["digest"]] for p in stages],
            "about": hashing.digest_file(self.root / "build.json"),
            "decisions": [[p.name, hashing.digest_file(p)] for p in logs],
            "merge": [self.merge.rule, list(self.merge.seniors), self.merge.least],
            "refine": hashing.digest_files(sorted((self.root / "refine").glob("part-*.parquet"))),
            "code": [
                code_digest("ahp_toolkit.report.page", "ahp_toolkit.decisions.status"),
                *(hashing.digest_file(Path(page.__file__).with_name(name)) for name in ("report.html", "report.js")),
            ],
        }


def renderer_of(root: Path) -> Callable[[Sample], Any]:
    """A function that makes the pixels of any sample of a build again."""
    from ahp_toolkit.occlusion.render import Renderer

    roots = {name: str(at) for name, at in Build(root).roots.items()}
    by_split = {name: Renderer(roots, root / "splits" / name) for name in SPLITS}
    return lambda sample: by_split[sample.split](sample)
