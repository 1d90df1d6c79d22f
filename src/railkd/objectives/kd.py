"""Plain knowledge distillation.

Equation: ``loss = lambda_1 CE + lambda_2 T^2 KL( softmax(z_t / T) || softmax(z_s / T) )`` with logits z (B, C).

Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).

Differences from the paper:
- The soft term is the KL divergence and not the cross-entropy. Its gradient is the same, and it is 0 when student and
  teacher agree.
- The default weights are 1/2 and 1/2.
"""

from __future__ import annotations

from railkd.objectives.base import Objective


class KD(Objective):
    """``loss = lambda_1 CE + lambda_2 T^2 KL(teacher || student)``."""

    paper = "Hinton et al. 2015, arXiv 1503.02531"
    reads = "logits"
    terms = ("ce", "kd")
