"""Reports show an evaluation as self-contained HTML pages.

In come evaluations and runs, out go pages that fetch nothing.
They import the evaluation and what lies below it, and know no metric by name.
"""
