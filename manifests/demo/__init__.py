"""A small labelled data set of real media files, made by procedure."""
