"""Studies: several supernets and searches on one footing, over several seeds, with error bars."""

from snugnet.study.config import Entry, StudyConfig, load_study
from snugnet.study.results import Results
from snugnet.study.run import run_study

__all__ = ["Entry", "Results", "StudyConfig", "load_study", "run_study"]
