"""Errors of caches."""

from mvemo.manifests.errors import MvemoError


class BadCache(MvemoError, ValueError):
    """Error in a cache file, or in data to be written to one.

    The message names the file, the value and the fix.
    """


class DamagedCache(BadCache):
    """Error for a truncated or overwritten cache that cannot be read at all."""


class CacheBusy(MvemoError, BlockingIOError):
    """Error for a cache that another writer has locked; the message names that writer."""
