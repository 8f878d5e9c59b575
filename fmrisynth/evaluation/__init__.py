"""How far synthetic runs can be trusted, measured on files.

Nothing here knows which generator wrote a run: a first-level GLM summarises
every run (`records`), participants' maps are brought on one grid (`maps`), and
pure functions on arrays give the figures (`correlation`, `rsa`,
`identification`, `amplitude`, `noise`, …). `study.evaluate` puts each figure
beside its ceiling, its floor and an interval.
"""
