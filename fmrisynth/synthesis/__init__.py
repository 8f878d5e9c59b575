"""Synthesis turns a model and a run into synthetic runs.

In come a model, a run's carrier and its events, out go volumes on the run's own grid and the
files that hold them. It may import the model's modules and what lies below.
"""
