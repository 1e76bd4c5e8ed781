"""Multi-vector embeddings: packed arrays, compressed forms, memory-mapped files."""
