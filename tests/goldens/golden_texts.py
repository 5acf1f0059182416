"""Texts of what commands write, without what differs from run to run, and their comparison."""

from __future__ import annotations

import difflib
import html
import json
import math
import re
from pathlib import Path
from typing import Any

# Keys of JSON files that tell when, where, by which versions and how fast.
VOLATILE = {
    *("versions", "version", "time", "date", "command", "host", "seconds", "code", "platform"),
    *("model_digest", "model_date", "etag", "seconds_left", "revision"),
}
# Text that differs from run to run, and what stands for it.
PATTERNS = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:\d\d)?", "DATE"),
    (r"\b(about |at most )?\d+(\.\d+)? (s|ms|min|h)( \d+ (s|min))?( left)?\b", "TIME"),
    (r"\b\d+(\.\d+)? ([KMG]i?B|bytes)\b", "SIZE"),
    (r"\b[0-9a-f]{16,64}\b", "DIGEST"),
    (r"(?m)^.*(versions:|command:).*$", ""),
)
# Numbers in full precision, which differ in their last digits.
PRECISE = re.compile(r"-?\b\d+\.\d{12,}(e-?\d+)?\b|-?\b\d+\.\d+e-\d+\b")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.I)


def page_text(page: str) -> str:
    """Return the text of an HTML page: a line for each block, no styles, scripts and figures."""
    page = re.sub(r"(?s)<(style|script|svg)\b.*?</\1>", " ", page)
    page = re.sub(r"</(p|tr|h\d|li|div|section|summary|caption|dd|dt)>", "\n", page)
    page = html.unescape(re.sub(r"(?s)<[^>]*>", " ", page))
    return "\n".join(line for line in map(_one_space, page.splitlines()) if line) + "\n"


def json_text(text: str) -> str:
    """Return JSON with sorted keys, without the `VOLATILE` ones."""
    text = json.dumps(_lasting(json.loads(text)), indent=1, sort_keys=True)
    # A list or mapping of single values takes one line.
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda m: _one_space(m[0]), text) + "\n"


def lasting_text(text: str, folder: Path, *, digests: bool) -> str:
    """Replace a run's folder, dates, durations and sizes; `digests` keeps digests."""
    text = text.replace(str(folder), "FOLDER")
    text = PRECISE.sub(lambda match: f"{float(match[0]):.6f}", text)
    for pattern, word in PATTERNS:
        if not (digests and word == "DIGEST"):
            text = re.sub(pattern, word, text)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def differences(expected: str, actual: str, *, rtol: float, atol: float) -> list[str]:
    """Return a diff of the lines that differ by more than the tolerance of their numbers."""
    before, after = expected.splitlines(), actual.splitlines()
    if len(before) == len(after):
        pairs = zip(before, after, strict=True)
        after = [a if _close(a, b, rtol, atol) else b for a, b in pairs]
    return list(difflib.unified_diff(before, after, "expected", "actual", lineterm="", n=0))


def _close(a: str, b: str, rtol: float, atol: float) -> bool:
    if NUMBER.split(a) != NUMBER.split(b):
        return False
    numbers = zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)), strict=True)
    return all(math.isclose(x, y, rel_tol=rtol, abs_tol=atol) for x, y in numbers)


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if k not in VOLATILE}
    return [_lasting(v) for v in value] if isinstance(value, list) else value


def _one_space(line: str) -> str:
    return " ".join(line.split())
