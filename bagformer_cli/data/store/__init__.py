"""The preprocessed dataset on disk."""
