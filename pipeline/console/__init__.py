"""Terminal output of the commands, and their interruption."""
