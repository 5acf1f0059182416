"""Stage one: plan, steps, processes, shards and estimates."""
