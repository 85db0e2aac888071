"""Strata: requests that were dealt and served alike, so that their means can be compared.

With another share held out, or other exits, sums of before and after are of different requests:
added up, a period of long conversations of which half were held out and one of short ones of which
few were would show a saving where there is none. So every change of what decides how requests are
dealt or served begins a stratum. Figures are made within strata, and then combined (`rows`).

The number of a stratum is a hash of its facts, so processes and restarts with the same settings
share it. Zero is what earlier versions counted, under settings that nobody wrote down.
"""

from stepgrpo_core.holdout import GROUPS

__all__ = ["cell", "group_of", "stratum_of"]


def cell(stratum: int, group: int) -> int:
    """A random group of a stratum as one number, as the file has it."""
    return stratum * GROUPS + group


def stratum_of(cell: int) -> int:
    """The stratum of a cell."""
    return cell // GROUPS


def group_of(cell: int) -> int:
    """The random group of a cell."""
    return cell % GROUPS
