r"""Simulate task-fMRI cohorts with a known truth: raw BIDS and fMRIPrep-like derivatives.

Written by ``python -m fmrisynth.phantom OUT`` or :func:`simulate_cohort`. Nothing in it is
real; it is meant for demonstrations, tests and questions that need the true answer.

The signal of participant *p* in a run with phase-encoding direction *d*, at voxel *x* (mm) and
frame time *t* (s), is

.. math::

    y(x, t) = S(x) \Big[ 1 + \tfrac{1}{100} \Big(
        \sum_c A_c(x)\, r_c(t) + \sum_k L_k(x)\, n_k(t) + m(x)\, s(x, t) + b(x, t) \Big) \Big]
        + \sigma\, \eta(x, t) + \nabla S(x) \cdot \delta(t)

with, all of them belonging to the participant:

- where the voxel lies in the template,
  :math:`q(x) = x + w_p(x) + s_d\, u_p(x)\, e_y`: a smooth warp :math:`w_p` (the participant's
  anatomy) and a susceptibility shift :math:`u_p` along the phase-encoding axis, of opposite
  sign :math:`s_d = \pm 1` in the two directions;
- the mean image :math:`S(x) = g_p\, B_p(x)\, D_p(q)\, (1 + s_d\, \partial_y u_p)\,
  \sum_j \rho_j P_j(q)`: gain, bias field, signal dropout, the stretching of the distorted
  image, and the tissue maps :math:`P_j` of nilearn's MNI152 with their brightness
  :math:`\rho_j`;
- the response amplitudes :math:`A_c(x) = a_p\, G(q) \sum_k W_{ck}\, e^{\alpha_{pck}}
  \exp(-|q(x) - \mu_k - j_{pk}|^2 / 2\sigma_k^2)` in percent signal change: sites
  :math:`\mu_k` shared by several tasks, which move with the anatomy through :math:`q`, so that
  the mean image predicts where they are, and by a little of their own (:math:`j_{pk}`);
- the response in time :math:`r_c = h_p * \sum_i z_i\, 1_{[o_i, o_i + \mathrm{dur}_i)}`: a
  double-gamma haemodynamic response :math:`h_p` with the participant's own latency, and an
  amplitude :math:`z_i = (1 + \epsilon_i) [1 + \beta (\tfrac12 - e^{-\mathrm{gap}_i / \tau})]` that
  varies from trial to trial and is larger after a pause than in close succession;
- network fluctuations :math:`L_k n_k`, whose mixing (the connectivity) is the participant's
  own, smooth autoregressive noise :math:`s`, stronger in grey matter and at the rim of the
  brain, slow drift :math:`b`, thermal noise :math:`\eta`, and the displacements
  :math:`\delta` of a few motion spikes, without which the noise is Gaussian.

The population (sites, weights, networks) is always the same; the seed draws the participants
and their runs. Cohorts of different seeds are therefore samples of one population.

This model is stationary and Gaussian. :mod:`fmrisynth.phantom.realistic` (``--realism full``)
describes one that is neither, and :mod:`fmrisynth.phantom.implants` (``--noise-from``) takes real
runs as the noise.
"""

from __future__ import annotations

from fmrisynth.phantom.cohort import simulate_cohort
from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.implants import ImplantConfig, implant_responses

__all__ = ["ImplantConfig", "PhantomConfig", "implant_responses", "simulate_cohort"]
