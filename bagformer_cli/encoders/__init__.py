"""Encoders of titles and images, and the layers on top of them that scorers share."""
