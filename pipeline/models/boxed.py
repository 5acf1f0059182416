"""The models in the box, by name: folders beside this file, as `mvemo fuse --final` writes them."""

from __future__ import annotations

from pathlib import Path

from mvemo.fuse.final.files import MODEL
from mvemo.pipeline.console.messages import tell
from mvemo.pipeline.errors import BadOption

# What predicts where no model is named: made of songs and their videos, from sound, pictures or
# both, so that a folder of both kinds has one table.
DEFAULT = "music-video"

FOLDER = Path(__file__).parent


def boxed_names() -> list[str]:
    """Names of the models that come with mvemo."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{MODEL}"))


def pick_model(name: str | None) -> Path:
    """`model_folder` of a name; `DEFAULT`, which is told, where none is given."""
    if name is None:
        tell(f"by the model {DEFAULT}, of songs and their videos; others: mvemo models")
    return model_folder(DEFAULT if name is None else name)


def model_folder(name: str | Path) -> Path:
    """Return the folder of a model in the box, or the folder that is named.

    A folder of the same name that has a model is preferred; ``./NAME`` is always a folder. Raises
    `BadOption` if there is neither.
    """
    folder = Path(name)
    if (folder / MODEL).is_file():
        return folder
    if str(name) in boxed_names():
        return FOLDER / str(name)
    if folder.is_dir():
        # Reading it will say what is amiss.
        return folder
    raise BadOption(
        f"--model {name}: neither a model in the box ({', '.join(boxed_names())}) nor a folder"
    )
