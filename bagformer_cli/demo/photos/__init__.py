"""Real photographs with Chinese titles, fetched by the ordinary clients of two registries."""
