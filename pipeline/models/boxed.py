"""Included models, by name: folders next to this file, as `mvemo fuse --final` writes them."""

from __future__ import annotations

from pathlib import Path

from mvemo.fuse.final.model import MODEL
from mvemo.pipeline.console.messages import tell
from mvemo.pipeline.errors import BadOption

# The default model: it predicts from sound, pictures or both, so that a folder of songs and
# videos gives one table.
DEFAULT = "music-video"

FOLDER = Path(__file__).parent


def boxed_names() -> list[str]:
    """Return the names of the included models."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{MODEL}"))


def pick_model(name: str | None) -> Path:
    """Return the folder of a model; without a name that of `DEFAULT`, which is told."""
    if name is None:
        tell(f"by the model {DEFAULT}, of songs and their videos; others: mvemo models")
    return model_folder(DEFAULT if name is None else name)


def model_folder(name: str | Path) -> Path:
    """Return the folder of an included model, or the folder with this path.

    A folder with this path that holds a model is preferred; ``./NAME`` is always a path. Raises
    `BadOption` if there is neither.
    """
    folder = Path(name)
    if (folder / MODEL).is_file():
        return folder
    if str(name) in boxed_names():
        return FOLDER / str(name)
    if folder.is_dir():
        # Reading it will report the problem.
        return folder
    raise BadOption(
        f"--model {name}: neither a model in the box ({', '.join(boxed_names())}) nor a folder"
    )
