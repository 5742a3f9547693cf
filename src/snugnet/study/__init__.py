"""Studies: several supernets and searches on one footing, over several seeds, with error bars."""

from snugnet.study.config import Entry, StudyConfig, load_study
from snugnet.study.handing_out import family_of
from snugnet.study.results import Results
from snugnet.study.run import run_study

__all__ = ["Entry", "Results", "StudyConfig", "family_of", "load_study", "run_study"]
