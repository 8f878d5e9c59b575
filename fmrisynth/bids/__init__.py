"""Reading runs from a BIDS tree and writing synthetic runs as BIDS derivatives.

``dataset.find_runs`` says which runs a tree holds, ``images.load_bold`` and
``events.read_events`` read one of them, ``derivatives.write_synthetic_run``
writes one, and ``locations`` refuses output directories that would touch the
input. Nothing in here imports torch, and nothing ever writes to an input.
"""
