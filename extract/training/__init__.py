"""Fine-tuning: what is trained on which clips, losses, batches, checkpoints, embedding."""
