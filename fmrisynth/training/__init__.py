"""Training turns runs into a model, one fitted part after the other.

In come runs and settings, out goes a `Model`. It may import the model's modules and what lies
below, and nothing of synthesis or evaluation.
"""
