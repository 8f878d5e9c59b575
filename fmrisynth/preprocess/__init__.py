"""Preprocessing brings runs onto the model grid.

In come runs on disk, out go carriers, residuals, regressors and windows, all of them numpy. It
may import BIDS, the settings and the runtime.
"""
