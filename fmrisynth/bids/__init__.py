"""Bids reads the runs of BIDS datasets and writes synthetic runs as BIDS derivatives.

In come folders, out go runs with their images and events, and files; nothing ever writes to an
input. It may import the settings and the runtime.
"""
