"""The architecture generator: from (superclass, budget) to an architecture (EAS section 3.2)."""
