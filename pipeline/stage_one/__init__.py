"""Stage one: what it does in which steps, on how many processes, and at what cost."""
