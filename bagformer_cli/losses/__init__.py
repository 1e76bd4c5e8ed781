"""Loss functions of a score matrix or of logits, one file for each family.

They take tensors only. ``training/objectives/`` applies them to a model and a batch.
"""
