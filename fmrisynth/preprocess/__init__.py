"""From runs on disk to residuals on the model grid, windows and regressors; all of it numpy."""
