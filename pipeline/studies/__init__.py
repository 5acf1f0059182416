"""The papers' tables and figures for the user's own manifest: one module for each study.

A study imports torch, so the command line imports it only when it runs.
"""
