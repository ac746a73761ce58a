"""Whether a difference between two rankings of the same queries may be chance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

N_SHUFFLES = 10_000
_BLOCK = 1_000


def randomisation_p(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], *, n_shuffles: int = N_SHUFFLES
) -> float:
    """Two-sided p of a paired randomisation test on the mean difference.

    Under chance alone either ranking might have had either value of a query. Smucker, Allan,
    Carterette, "A Comparison of Statistical Significance Tests for Information Retrieval
    Evaluation", CIKM 2007. The same values give the same p.

    Args:
        a: a measure of each query under one ranking, shape (n,), n >= 1.
        b: under the other, in the same order.
        n_shuffles: random assignments; a p is at least one in so many.
    """
    differences = a - b
    rng = np.random.default_rng(0)
    least = abs(differences.sum()) - 1e-9  # sums of the same values differ in their last bits
    n_reached = 0
    for start in range(0, n_shuffles, _BLOCK):
        signs = rng.choice((-1.0, 1.0), (min(_BLOCK, n_shuffles - start), len(differences)))
        n_reached += int(np.count_nonzero(np.abs(signs @ differences) >= least))
    return (n_reached + 1) / (n_shuffles + 1)
