"""``python -m mvemo.pipeline``: the command ``mvemo``."""

from mvemo.pipeline.entry import main

if __name__ == "__main__":
    main()
