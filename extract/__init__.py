"""Stage one: media, front ends, nets, fine-tuning, embedding."""
