"""Everything that touches a transformers model: checkpoints, heads, blocks, students, the distiller, inference.

These are the public names. Each is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from railkd.runtime.faces import lazy

if TYPE_CHECKING:
    from railkd.models.blocks import pool
    from railkd.models.checkpoints import Checkpoint, load_classifier, load_tokenizer
    from railkd.models.distiller import Distiller
    from railkd.models.heads import head_config
    from railkd.models.inference import predict_logits
    from railkd.models.quiet import quiet_transformers
    from railkd.models.student import describe_student, make_student

__all__ = [
    "Checkpoint",
    "Distiller",
    "describe_student",
    "head_config",
    "load_classifier",
    "load_tokenizer",
    "make_student",
    "pool",
    "predict_logits",
    "quiet_transformers",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Checkpoint": "railkd.models.checkpoints",
        "Distiller": "railkd.models.distiller",
        "describe_student": "railkd.models.student",
        "head_config": "railkd.models.heads",
        "load_classifier": "railkd.models.checkpoints",
        "load_tokenizer": "railkd.models.checkpoints",
        "make_student": "railkd.models.student",
        "pool": "railkd.models.blocks",
        "predict_logits": "railkd.models.inference",
        "quiet_transformers": "railkd.models.quiet",
    },
)
