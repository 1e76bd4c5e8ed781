"""Objectives: functions of a score matrix or of logits; one file a family."""
