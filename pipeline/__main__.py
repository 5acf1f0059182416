"""``python -m mvemo.pipeline``: the command ``mvemo``."""

from mvemo.pipeline.cli import main

if __name__ == "__main__":
    main()
