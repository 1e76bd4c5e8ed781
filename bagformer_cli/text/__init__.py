"""Titles to tokens and entity bags."""
