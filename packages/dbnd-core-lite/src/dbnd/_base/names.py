"""New uids, and readable names for runs."""

from __future__ import annotations

import random
from os import urandom
from typing import Final
from uuid import UUID

_ADJECTIVES: Final = """
    amber bold brave bright calm clear crisp eager early fair fast fine fresh gentle glad golden grand green happy
    keen kind light lively lucky merry mild neat noble pale patient plain proud pure quick quiet rapid ready sharp
    shy silent silver smart smooth snowy solid steady still sunny swift tall true vivid warm wide wild wise young
""".split()
_SURNAMES: Final = """
    abel bayes bernoulli bohr boole cantor cauchy church curie descartes dijkstra dirac einstein erdos euclid
    euler fermat feynman fisher fourier galois gauss godel hamming hilbert hopper huygens jacobi kepler knuth
    kolmogorov lagrange laplace legendre leibniz lovelace markov maxwell mendel neumann newton noether pascal
    pearson planck poincare ramanujan riemann shannon stokes turing wiener
""".split()


def new_uid() -> UUID:
    """A random uid, also where a test suite lets ``uuid.uuid4`` answer the same ones in each run.

    Two runs of one uid would be one, and of a second journal of the same id the tracker would take nothing.
    """
    return UUID(bytes=urandom(16), version=4)


def random_name() -> str:
    """A readable name for a run, such as "quiet_noether"; not unique."""
    chooser = random.SystemRandom()  # neither bound to the seed of a training nor a change to its numbers
    return f"{chooser.choice(_ADJECTIVES)}_{chooser.choice(_SURNAMES)}"
