"""What is here and what is not: the findings of ``mvemo doctor``."""
