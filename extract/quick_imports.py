"""Large packages imported without a look for garbage among what they make."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_uncollected() -> Iterator[None]:
    """Leave what is imported within out of garbage collection, then and at the program's end.

    Torch makes very many objects that live as long as the program. Looking through them
    while they are made and when the program ends takes 0.7 of the 2.2 seconds that a
    program takes which does nothing but import torch. Where torch has been imported
    nothing is done.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
