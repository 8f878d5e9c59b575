"""A model holds trained modules and its directory on disk.

In come settings and tensors, out go latents, velocities and noise; nothing is fitted and no run
is drawn here. It may import preprocessing and what lies below.
"""
