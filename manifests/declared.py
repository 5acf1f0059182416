"""Declaration of settings: default, meaning and allowed values of each field, in one place."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Allowed:
    """Allowed values of a setting: a range of numbers, or a list of names."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    names: Sequence[str] = ()

    def __contains__(self, value: Any) -> bool:
        if self.names:
            return value in self.names
        return not isinstance(value, (int, float)) or (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        """Return the allowed values in words."""
        if self.names:
            return f"one of {', '.join(self.names)}"
        if self.ge is not None and self.le is not None:
            return f"from {self.ge:.12g} to {self.le:.12g}"
        if self.ge is not None and self.lt is not None:
            return f"at least {self.ge:g} and below {self.lt:g}"
        words = (
            (self.ge, "{:.12g} or more"),
            (self.gt, "above {:.12g}"),
            (self.le, "at most {:.12g}"),
            (self.lt, "below {:.12g}"),
        )
        return " and ".join(text.format(limit) for limit, text in words if limit is not None)


def setting(default: Any, meaning: str = "", *, profile: bool = True, **allowed: Any) -> Any:
    """Return a field of a dataclass of settings; `default` may be the class of nested settings.

    `meaning` is its text in docs/settings.md; `profile` is False if profiles must not set it.
    """
    metadata = {"meaning": meaning, "allowed": Allowed(**allowed), "profile": profile}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def profile_fields(settings: Any) -> Iterator[tuple[Field[Any], Any]]:
    """Yield field and value of each setting that a profile may set, nested settings included."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            yield from profile_fields(value)
        elif each.metadata.get("profile", True) and each.name != "name":
            yield each, value


def check_settings(settings: Any, error: Callable[[str], Exception]) -> None:
    """Raise `error` for the first field whose value is not allowed."""
    for each in fields(settings):
        value, allowed = getattr(settings, each.name), each.metadata.get("allowed")
        if allowed is None or value in allowed:
            continue
        if allowed.names:
            raise error(f"{each.name}: expected {allowed}, got {value!r}")
        raise error(f"{each.name} is {value}: it must be {allowed}")
