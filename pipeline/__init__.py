"""Settings, the two stages as functions, and the commands."""
