"""Catalogues: products of a folder, a table or a dataset."""
