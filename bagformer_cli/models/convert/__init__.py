"""Conversion of other projects' checkpoints to model folders; every tensor is accounted for."""
