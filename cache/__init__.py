"""HDF5 feature cache, the only data that travels from stage one to stage two."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
