"""The error a user causes, and the extras that install heavy optional packages."""

from __future__ import annotations

import importlib.util

from ahp_toolkit.core.text import short_line


class UserError(ValueError):
    """What a user did, in one line: what was expected, what came, in which file and record, and the way out.

    The command line prints it without a traceback and exits with status 2.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(short_line(message))


class StorageError(Exception):
    """A store that refuses or does not answer, or an archive that cannot be entered: one line, like a `UserError`.

    No ValueError and no OSError, on purpose: code that counts bad records must not take it for one and go on.
    """


#: Importable package -> the extra of ahp-toolkit that installs it.
EXTRAS = {
    **dict.fromkeys(("fiftyone", "markdown", "pymongo", "bson"), "review"),
    **dict.fromkeys(("torch", "torchvision", "lightning", "timm", "transformers", "safetensors"), "train"),
    **dict.fromkeys(("segmentation_models_pytorch", "pytorch_fid", "tensorboard", "huggingface_hub"), "train"),
    **dict.fromkeys(("ray", "psutil"), "ray"),
    **dict.fromkeys(("fsspec", "upath", "s3fs", "gcsfs", "adlfs"), "storage"),
}


def install_line(package: str) -> str:
    """The pip line that installs an importable ``package``, by its extra where it has one."""
    extra = EXTRAS.get(package)
    return f"pip install 'ahp-toolkit[{extra}]'" if extra else f"pip install {package}"


def require(package: str, needed_for: str) -> None:
    """Check that an importable ``package`` is installed.

    Raises:
        UserError: with the line that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{needed_for} needs the package {package}, which is not installed: {install_line(package)}")


def missing_extra(error: ModuleNotFoundError) -> UserError | None:
    """The line for a user whose install lacks an extra; None for a module that no extra installs."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return UserError(f"this needs the package {package}, which is not installed: {install_line(package)}")
