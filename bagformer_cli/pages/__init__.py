"""Results as self-contained HTML pages and as PNG images."""
