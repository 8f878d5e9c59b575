"""Metrics compare synthetic with real data and say what each number means."""
