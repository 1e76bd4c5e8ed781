"""Datasets: MUGE files, images, the preprocessed store, the demo set, batches."""
