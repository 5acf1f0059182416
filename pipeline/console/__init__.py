"""What the commands tell at the terminal, and how they are interrupted."""
