"""The tables and figures of J22 and PL20 for the user's own manifest, a module each.

Importing a study imports torch; the command line does so only when one is run.
"""
