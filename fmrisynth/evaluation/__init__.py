"""The evaluation compares anybody's synthetic runs with real held-out ones, from files alone.

In come lists of runs, out go estimates beside their ceilings and floors, maps and verdicts.
It imports preprocessing, BIDS and the runtime, and never the model.
"""
