"""How sure scores are: resampling, intervals, tests between models, learning curves."""
