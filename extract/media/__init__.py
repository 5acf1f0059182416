"""The only reader of media files: checks, sound, frames, and their place in time."""
