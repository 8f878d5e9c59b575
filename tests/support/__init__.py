"""Small BIDS trees, tiny models, cohorts and command lines, which tests are made with."""
