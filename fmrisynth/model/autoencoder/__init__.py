"""The 3D VQ-GAN maps single residual volumes to latents and back."""
