"""What a worker process is started with."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from mvemo.extract.workers.handle import worker_variables
from mvemo.extract.workers.pool import run_calls, stop_workers
from mvemo.extract.workers.process import Call

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def asks_for_large_pages() -> bool:
    """Whether the C library here does, where it is told to."""
    name, version = platform.libc_ver()
    of_glibc = name == "glibc" and [int(part) for part in version.split(".")] >= [2, 35]
    return of_glibc and SETTING.exists() and "[madvise]" in SETTING.read_text(encoding="ascii")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_what_the_user_set_of_malloc_stays(before: str | None, after: str) -> None:
    environment = {} if before is None else {"GLIBC_TUNABLES": before}
    assert worker_variables(environment)["GLIBC_TUNABLES"] == after


@pytest.mark.skipif(
    not asks_for_large_pages(), reason="only glibc of 2.35 or later asks, where Linux waits for it"
)
def test_memory_of_a_worker_asks_for_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    stop_workers()
    maps = "[bytearray(1 << 24), open('/proc/self/smaps', encoding='ascii').read()][1]"
    (outcome,) = run_calls([Call("builtins:eval", (maps,))], workers=1)
    # As `man 5 proc` names the flag of pages that madvise asked for.
    assert any(" hg" in line for line in outcome.result().splitlines() if "VmFlags" in line)
