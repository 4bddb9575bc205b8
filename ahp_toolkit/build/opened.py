"""Builds from Python: configure and run one; its people and samples with their pixels; a split as training data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahp_toolkit.build.config import Config, config_of
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS, Human, ImageRef, Sample
from ahp_toolkit.occlusion.paste import Pasted
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.runtime.settings import every
from ahp_toolkit.storage import build_folder
from ahp_toolkit.storage.images import Rgb

if TYPE_CHECKING:
    from ahp_toolkit.nets.split_data import SplitData
    from ahp_toolkit.runtime.stage import Result


@dataclass(frozen=True)
class Build:
    """A build folder: tables are read when they are asked for, pixels are made from the sources' photos."""

    root: Path

    @classmethod
    def open(cls, root: str | Path) -> Build:
        """The build in a local folder.

        Raises:
            UserError: when the folder is no build.
        """
        return cls(build_folder.Build(Path(root)).root)

    def splits(self) -> list[str]:
        """The splits that hold people or samples: of train, val and test."""
        return self._folder.splits()

    def humans(self, split: str | None = None) -> list[Human]:
        """The preserved people of a split (None: of all), sorted by id."""
        return self._folder.humans(split)

    def samples(self, split: str) -> Iterator[Sample]:
        """The frozen samples of a split, in the order of their table."""
        return self._folder.samples(split)

    def photo(self, image: ImageRef) -> Rgb:
        """A photograph in the frame of its annotations, RGB uint8 [H, W, 3].

        Raises:
            ImageError: when it cannot be read.
        """
        return self._folder.pixels(image)

    def render(self, sample: Sample) -> Pasted:
        """The pixels of a sample, checked against its digest.

        ``image`` and ``recovered`` are RGB uint8 [H, W, 3]; ``modal``, ``amodal`` and ``invisible`` bool [H, W].

        Raises:
            ImageError: when a photo cannot be read or has changed since the split was made.
        """
        return self._renderers[sample.split](sample)

    def dataset(self, split: str, size: int = 256) -> SplitData:
        """The frozen samples of a split as a torch ``Dataset`` of square crops of ``size`` px (extra ``train``)."""
        from ahp_toolkit.nets.split_data import SplitData

        return SplitData(list(self.samples(split)), self.render, size)

    @cached_property
    def _folder(self) -> build_folder.Build:
        return build_folder.Build(self.root)

    @cached_property
    def _renderers(self) -> dict[str, Renderer]:
        roots = {name: str(path) for name, path in self._folder.roots.items()}
        return {split: Renderer(roots, self.root / "splits" / split) for split in SPLITS}


def configure(sources: Mapping[str, str | Path], out: str | Path, **options: Any) -> Config:
    """The configuration of a build.

    Args:
        sources: the root of each source by FORMAT or NAME:FORMAT, as ``--source`` takes them.
        out: the build folder.
        options: any other option of ``ahp build`` by its field name (see the reference), with the value that the
            command line takes.

    Raises:
        UserError: for an unknown option or source, or a value that makes no sense.
    """
    known = {field.name for field in every(Config)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UserError(f"a build has no option {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    roots = tuple(f"{name}={root}" for name, root in sources.items())
    return config_of({"sources": roots, "out": Path(out), "quiet": True, **options})


def build_dataset(config: Config, finished: Callable[[Result], None] = lambda _: None) -> Build:
    """Run every stage that is not up to date, and open the build; an output at an address is uploaded stage by stage.

    Args:
        finished: receives the result of each stage.

    Raises:
        UserError: when an option, an input or a stage needs the user.
    """
    from ahp_toolkit.build.build import build
    from ahp_toolkit.build.checks import check, check_device
    from ahp_toolkit.runtime.engine_options import make_engine
    from ahp_toolkit.storage.lock import lock
    from ahp_toolkit.storage.sync import upload, working

    check(config)
    check_device(config)
    with working(config.out, config.run.work) as folder, lock(folder), make_engine(config.engine) as engine:

        def uploaded(result: Result) -> None:
            finished(result)
            upload(folder, config.out)

        build(config.at(folder), engine, uploaded)
    return Build.open(folder)
