"""The published BagFormer code: its text rules, its model and its checkpoints (`compat`)."""
