"""Fewer and smaller vectors: token pooling, pruning, residual codes."""
