"""Models: encoders put together into scorers, built from a configuration, saved and loaded."""
