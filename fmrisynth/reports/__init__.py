"""Self-contained HTML pages that show an evaluation.

`figures` draws, `html` fills the templates. A page holds everything it needs:
styles, drawings and pictures are inlined, nothing is fetched.
"""
