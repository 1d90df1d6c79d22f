"""Holds the teacher that the user gives: a checkpoint, the cache of one, both, or a file of answers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from railkd.errors import RailkdError
from railkd.jobs.answers import read_teacher_labels
from railkd.jobs.options import CheckOptions, DistillOptions, Say, required
from railkd.jobs.trained import Trained, trained_length
from railkd.models.checkpoints import Checkpoint
from railkd.models.named_teachers import NamedTeacher
from railkd.signals import BlockShape
from railkd.tasks.target import Target
from railkd.teacher import StoredTeacher, TeacherCache
from railkd.teacher.identity import content_of, identify


@dataclass(frozen=True)
class GivenTeacher:
    """The teacher that the user gives. At least one of its two parts is present.

    Attributes:
        checkpoint: model that can run; None if the user gives a cache or a file of answers alone.
        cache: stored answers of the teacher, a cache or a file; None if it is not built yet or not named.
    """

    checkpoint: Checkpoint | None
    cache: StoredTeacher | None

    @classmethod
    def find(
        cls, options: DistillOptions | CheckOptions, named: NamedTeacher, problem_type: str | None = None
    ) -> GivenTeacher:
        """Find a teacher that the options name.

        A missing or unreadable teacher raises `railkd.errors.RailkdError`.

        Args:
            options: settings of the job.
            named: the teacher among them.
            problem_type: of a file of answers, as ``--problem-type`` takes it; None: the file decides.

        Returns:
            The teacher. A cache that is named but not built yet is left out.
        """
        if named.labels:
            return cls(None, read_teacher_labels(options, named.labels, problem_type))
        if named.model is None:
            return cls(None, TeacherCache.open(required(named.cache, "--teacher or --cache")))
        checkpoint = Checkpoint.find(named.model, trust=options.trust_remote_code)
        built = named.cache is not None and TeacherCache.is_built(named.cache)
        cache = TeacherCache.open(str(named.cache)) if built else None
        dtype = options.teacher_dtype or (cache.identity.teacher_dtype if cache else "auto")
        return cls(checkpoint.loaded_as(dtype, options.teacher_device_map), cache)

    @property
    def target(self) -> Target:
        """The task and the classes of the teacher, which the student takes over."""
        if self.checkpoint is not None:
            return Target.of_model(self.checkpoint.labels, self.checkpoint.task.problem_type, str(self.checkpoint))
        info = self._stored.info
        return Target.of_model(info.labels, info.problem_type, str(self._stored.path))

    @property
    def gaps(self) -> bool:
        """True if rows may lack an answer: the teacher is a file of answers."""
        return self.cache is not None and self.cache.gaps

    @property
    def gives_states(self) -> bool:
        """True if the teacher has states of blocks, or can run for them."""
        return self.checkpoint is not None or bool(self._stored.poolings)

    @property
    def shape(self) -> BlockShape:
        """The number of blocks and the width of the teacher; of principal components in a cache, their number."""
        if self.checkpoint is None or self.states_dim:
            return self._stored.info.shape
        return self.checkpoint.shape

    @property
    def states_dim(self) -> int | None:
        """The number of principal components that the cache keeps of a state; None: whole states, or no cache yet."""
        return self.cache.identity.states_dim if self.cache is not None else None

    @property
    def trained(self) -> Trained:
        """The teacher's training, as its folder describes it."""
        return Trained.of(self._config)

    @property
    def content(self) -> str:
        """A digest of the weights, config and tokenizer of the teacher, also if its cache alone is given."""
        return content_of(self.checkpoint) if self.checkpoint is not None else self._stored.identity.content()

    def max_length(self, given: int | None, say: Say) -> int:
        """Return the length in tokens at which texts are cut.

        Args:
            given: length that the user gives; None takes the one of the cache, or of the training of the teacher.
            say: receives a line if the length is not the one of the training.
        """
        if self.cache is not None:
            given = given or self.cache.identity.max_length or None  # a file of answers has none
        return trained_length(given, self._config, say)

    def sharing(self) -> AbstractContextManager[None]:
        """Return a context in which all callers share one model of the teacher. Its end releases the model."""
        return self.checkpoint.sharing() if self.checkpoint is not None else nullcontext()

    def check_max_length(self, given: int | None) -> None:
        """Refuse a length other than the one of the cache if no teacher can build another cache.

        Args:
            given: length that the user gives; None if it is left out.

        Raises:
            RailkdError: the lengths differ.
        """
        stored = self.cache.identity.max_length if self.checkpoint is None and self.cache else 0
        if stored and given not in (None, stored):
            raise RailkdError(
                f"Expected max length {stored}, with which the cache '{self._stored.path}' was made, got --max-length "
                f"{given}. Fix: leave the flag out, or build another cache."
            )

    def check_same(self, max_length: int) -> None:
        """Refuse a cache that belongs to another teacher.

        Args:
            max_length: length in tokens at which the job cuts texts.
        """
        if self.checkpoint is None or not isinstance(self.cache, TeacherCache):
            return
        ours = self.cache.identity
        wanted = identify(
            self.checkpoint,
            self.checkpoint.tokenizer,
            max_length=max_length,
            precision=ours.precision,
            states_dtype=ours.states_dtype,
            states_dim=ours.states_dim,
            blocks=ours.blocks,
        )
        if ours.differences(wanted):
            self.cache.check(wanted)

    @property
    def _config(self) -> Any:
        return self.checkpoint.config if self.checkpoint is not None else None

    @property
    def _stored(self) -> StoredTeacher:
        assert self.cache is not None
        return self.cache
