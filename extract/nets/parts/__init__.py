"""Building blocks of nets: base class, inputs, front ends, layers, weights, registry."""
