"""Claims that a paper would make, stated as data, and what a study's records say about each."""

from analysis.claims.judge import Evidence, Judgement, judge
from analysis.claims.spec import Claim, load_claims

__all__ = ["Claim", "Evidence", "Judgement", "judge", "load_claims"]
