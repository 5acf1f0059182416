"""Known layouts of data sets, read into manifests."""
