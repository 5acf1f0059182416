"""What nets are built of: their base class, inputs, front ends, layers, weights, registry."""
