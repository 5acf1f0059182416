"""The unimodal nets, by name."""
