"""The teacher that a job was given: a checkpoint, the cache of one, or both."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from railkd.errors import RailkdError
from railkd.jobs.options import DEFAULT_MAX_LENGTH, CheckOptions, DistillOptions, required
from railkd.models.checkpoints import Checkpoint
from railkd.signals import BlockShape
from railkd.tasks.target import Target
from railkd.teacher import TeacherCache
from railkd.teacher.identity import identify


@dataclass(frozen=True)
class GivenTeacher:
    """The teacher that a job was given. One of the two is there.

    Attributes:
        checkpoint: runs; None: the cache is all there is.
        cache: holds what the teacher said; None: it is not built yet, or not asked for.
    """

    checkpoint: Checkpoint | None
    cache: TeacherCache | None

    @classmethod
    def find(cls, options: DistillOptions | CheckOptions) -> GivenTeacher:
        """Find the teacher that the options name.

        Raises:
            RailkdError: neither a teacher nor a cache is named, or one of them cannot be read.
        """
        trust = options.trust_remote_code
        checkpoint = Checkpoint.find(options.teacher, trust=trust) if options.teacher else None
        if checkpoint is None:
            return cls(None, TeacherCache.open(required(options.cache, "--teacher or --cache")))
        built = options.cache is not None and TeacherCache.is_built(options.cache)
        return cls(checkpoint, TeacherCache.open(str(options.cache)) if built else None)

    @property
    def target(self) -> Target:
        """What the teacher answers, and so the student."""
        if self.checkpoint is not None:
            return Target.of_model(self.checkpoint.labels, self.checkpoint.task.problem_type, str(self.checkpoint))
        info = self._stored.info
        return Target.of_model(info.labels, info.problem_type, str(self._stored.path))

    @property
    def shape(self) -> BlockShape:
        """Blocks and width of the teacher."""
        return self.checkpoint.shape if self.checkpoint is not None else self._stored.info.shape

    def max_length(self, given: int | None) -> int:
        """Return the length in tokens: the user's, or that of the cache, or the default."""
        return given or (self.cache.identity.max_length if self.cache is not None else DEFAULT_MAX_LENGTH)

    def sharing(self) -> AbstractContextManager[None]:
        """Let all that run the teacher inside of the block share one model; it is released at the end of the block."""
        return self.checkpoint.sharing() if self.checkpoint is not None else nullcontext()

    def check_max_length(self, given: int | None) -> None:
        """Refuse another length than that of a cache whose teacher is not there to build another."""
        if self.checkpoint is None and given not in (None, self._stored.identity.max_length):
            raise RailkdError(
                f"the cache '{self._stored.path}' was made with max length {self._stored.identity.max_length}, got "
                f"--max-length {given}; leave the flag out, or build another cache"
            )

    def check_same(self, max_length: int) -> None:
        """Refuse to judge a teacher by the cache of another one.

        Args:
            max_length: of the job, in tokens.
        """
        if self.checkpoint is None or self.cache is None:
            return
        ours = self.cache.identity
        wanted = identify(
            self.checkpoint,
            self.checkpoint.tokenizer,
            max_length=max_length,
            precision=ours.precision,
            states_dtype=ours.states_dtype,
            blocks=ours.blocks,
        )
        if ours.differences(wanted):
            self.cache.check(wanted)

    @property
    def _stored(self) -> TeacherCache:
        assert self.cache is not None
        return self.cache
