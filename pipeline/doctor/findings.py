"""Finding about this machine or installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """Result of one check, on one line.

    Examples
    --------
    >>> print(Finding("note", "GPU", "none", "--profile pretrained needs none").line())
    note     GPU: none -> --profile pretrained needs none
    """

    # ``note``: something optional is absent; ``problem``: something needed is absent or broken.
    status: Status
    subject: str  # subject of the check, in one or two words
    text: str  # result of the check
    cure: str = ""  # remedy, as a command if there is one; empty if all is well

    def line(self) -> str:
        """Format the finding as one line for the terminal."""
        cure = f" -> {self.cure}" if self.cure else ""
        return f"{self.status:7}  {self.subject}: {self.text}{cure}"
