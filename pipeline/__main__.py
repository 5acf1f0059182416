"""``python -m mvemo.pipeline``: the command ``mvemo``."""

from mvemo.pipeline.start import main

if __name__ == "__main__":
    main()
