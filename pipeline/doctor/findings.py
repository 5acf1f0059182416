"""A finding about this machine or installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, on one line.

    Examples
    --------
    >>> print(Finding("note", "GPU", "none", "--profile pretrained needs none").line())
    note     GPU: none -> --profile pretrained needs none
    """

    # ``ok``; ``note`` where something optional is absent; ``problem`` where something that is
    # needed is absent or does not work.
    status: Status
    subject: str  # what was looked at, a word or two
    text: str  # what was found
    # What to do about it, as a command where there is one; empty for what is in order.
    cure: str = ""

    def line(self) -> str:
        """For the terminal, without a break."""
        cure = f" -> {self.cure}" if self.cure else ""
        return f"{self.status:7}  {self.subject}: {self.text}{cure}"
