"""Ranks and recall, MUGE submissions, whole evaluations, reports."""
