"""fmrisynth: learn task fMRI from a BIDS dataset and write synthetic runs as BIDS derivatives."""

__version__ = "0.1.0"
