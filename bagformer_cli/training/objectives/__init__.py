"""Training objectives: what each needs of a batch, and its loss."""
