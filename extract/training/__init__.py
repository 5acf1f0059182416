"""Fine-tuning of nets: protocols, losses, batches, checkpoints, embedding."""
