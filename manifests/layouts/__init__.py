"""Layouts of published data sets, read into manifests."""
