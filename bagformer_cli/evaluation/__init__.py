"""Ranks and recall, whole evaluations, MUGE submissions, comparison of models."""
