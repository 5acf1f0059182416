"""The error of this package, and its concrete kinds."""

from __future__ import annotations


class CacheError(Exception):
    """Base of every error that a cache file causes."""


class BadCache(CacheError, ValueError):
    """A cache file, or what is to be written to one, is wrong.

    The message names the file, the value and the remedy.
    """


class DamagedCache(BadCache):
    """A feature cache that is cut off or overwritten, so that nothing of it can be read."""


class MissingCache(CacheError, FileNotFoundError):
    """The cache file does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "missing"


class CacheBusy(CacheError, BlockingIOError):
    """Another writer holds the cache; the message says who."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "busy"
