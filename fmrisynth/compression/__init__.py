"""3D VQ-GAN: single residual volumes to latents a quarter of their size, and back.

Volumes are compressed one by one, ×4 along each axis. What the rest of the
package uses are `VQGAN.encode` and `VQGAN.decode` on continuous latents; the
codebook shapes those latents while the network learns.
"""
