"""Build the small BIDS trees, models, cohorts and command lines that tests use."""
