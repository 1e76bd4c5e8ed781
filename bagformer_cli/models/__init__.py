"""Encoders put together into scorers; saving, loading, converting."""
