"""Manifests (labelled clips with groups and folds), and the demo data set."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
