"""Runs become cached records: one pass over each run measures all that later stages need."""
