"""Search over a catalogue: an index contract, its engines, recall, late interaction, rerank."""
