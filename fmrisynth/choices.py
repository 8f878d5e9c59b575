"""Names that options may take, apart from what they name.

Reading a command line, or printing its help, must not load the networks: that
takes seconds. The tests hold these names against the tables of what they name.
"""

from __future__ import annotations

__all__ = [
    "ANY_TASK",
    "BASELINE_NAMES",
    "GROUP_GLM",
    "NO_BASELINE",
    "PRESET_NAMES",
    "SAMPLER_NAMES",
]

SIZES = ("38m", "85m", "151m", "237m", "340m", "463m")
PRESET_NAMES = (
    "demo",
    "small",
    *(f"{form}-{size}" for form in ("paper", "published") for size in SIZES),
)
SAMPLER_NAMES = ("euler", "ddim", "ddpm", "dpmpp-2m")

GROUP_GLM = "group-glm"  # stands in every table unless it is switched off
BASELINE_NAMES = (GROUP_GLM, "fmrisim")
NO_BASELINE = "none"

ANY_TASK = ""  # of --events: the task of runs that all have the same
