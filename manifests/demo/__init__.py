"""A small labelled set of real media files, made by procedure."""

from mvemo.manifests.demo.make import make_demo

__all__ = ["make_demo"]
