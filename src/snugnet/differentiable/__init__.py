"""Differentiable search: architecture and weights learned together, under limits (DCA-NAS, arXiv 2307.04443; DARTS, arXiv 1806.09055)."""
