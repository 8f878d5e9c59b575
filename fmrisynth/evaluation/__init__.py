"""How far synthetic runs can be trusted, measured on files.

Nothing here knows which generator wrote a run: a first-level GLM summarises
every run (`records`), participants' maps are brought on one grid (`maps`,
`cohort`), and functions on arrays give the figures (`activation`, `overlap`,
`timeseries`, `timing`, `individuals`, `diversity`, `connectivity`, `variance`,
`copying`, `decoding`). `study.evaluate` puts each figure beside its ceiling,
its floor and an interval (`resampling`); `meaning` says what those are, or why
there is none, and `verdict` holds the rules by which a figure passes.
"""
