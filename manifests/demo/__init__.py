"""Demo data set: a small labelled set of generated media files."""

from mvemo.manifests.demo.make import make_demo

__all__ = ["make_demo"]
