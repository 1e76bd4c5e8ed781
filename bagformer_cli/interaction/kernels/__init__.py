"""Implementations of MaxSim: ``reference.py`` defines the result, the others are faster."""
