"""A search service over an index: JSON API and a page (``xmr serve``)."""
