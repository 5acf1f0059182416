"""What depends on the task: labels, losses, metrics, decisions, tables and figures."""
