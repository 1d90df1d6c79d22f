"""Plain knowledge distillation: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv
1503.02531).

But: the soft term is the KL divergence, not the cross-entropy, so that it is 0 when student and teacher agree; and the
default weights are 1/2 and 1/2.
"""

from __future__ import annotations

from railkd.objectives.base import Objective


class KD(Objective):
    """``loss = lambda_1 CE + lambda_2 T^2 KL(teacher || student)``."""

    terms = ("ce", "kd")
