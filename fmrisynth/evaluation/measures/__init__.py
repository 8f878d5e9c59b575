"""Measures turn arrays into numbers and know nothing of files or sources."""
