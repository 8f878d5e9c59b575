"""Noise models draw the diffusion's noise, from white to the colour and networks of the data."""
