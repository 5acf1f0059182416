"""Errors of caches."""


class CacheError(Exception):
    """Base class of errors about a cache file."""


class BadCache(CacheError, ValueError):
    """Error in a cache file, or in data to be written to one.

    The message names the file, the value and the fix.
    """


class DamagedCache(BadCache):
    """Error for a truncated or overwritten cache that cannot be read at all."""


class MissingCache(CacheError, FileNotFoundError):
    """Error for a cache file that does not exist."""


class CacheBusy(CacheError, BlockingIOError):
    """Error for a cache that another writer has locked; the message names that writer."""
