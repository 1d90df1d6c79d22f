"""Holds all teachers that the user gives. One teacher is itself, several are the mean of their answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset

from railkd.data.keys import keys_of
from railkd.jobs.given_teacher import GivenTeacher
from railkd.jobs.options import CheckOptions, DistillOptions, Say
from railkd.jobs.splits import Splits
from railkd.jobs.trained import Trained
from railkd.models.checkpoints import Checkpoint
from railkd.models.inference import predict_logits
from railkd.models.named_teachers import PART, named_teachers, states_number
from railkd.objectives import MethodSpec
from railkd.tasks.target import Target
from railkd.teacher import StoredTeacher, TeacherInfo, TeacherMean
from railkd.teacher.mean import match_labels, mean_of_outputs, shares_of


@dataclass(frozen=True)
class GivenTeachers:
    """The teachers that the user gives, one or more.

    Attributes:
        members: the K teachers, in the order of the options.
        names: of them, as the user wrote them.
        shares: (K,) weights with a sum of 1.
        states: number of the member whose states layer methods read.
    """

    members: tuple[GivenTeacher, ...]
    names: tuple[str, ...]
    shares: np.ndarray
    states: int

    @classmethod
    def find(cls, options: DistillOptions | CheckOptions, say: Say) -> GivenTeachers:
        """Find the teachers that the options name.

        A missing or unreadable teacher, and teachers with other labels, raise `railkd.errors.RailkdError`.

        Args:
            options: settings of the job.
            say: receives a line about several teachers.

        Returns:
            The teachers. The first one decides the kind of task of files of answers that do not say it.
        """
        named = named_teachers(options)
        members: list[GivenTeacher] = []
        for one in named:
            kind = members[0].target.task.name if members else None
            members.append(GivenTeacher.find(options, one, kind))
        names = tuple(one.name for one in named)
        asked = states_number(options, named)
        first = next((number for number, member in enumerate(members) if member.gives_states), 0)
        shares = shares_of(options.teacher_weights, len(named))
        found = cls(tuple(members), names, shares, first if asked is None else asked)
        if len(members) > 1:
            match_labels(found._infos, names)
            say(found.described)
        return found

    @property
    def described(self) -> str:
        """The teachers and their weights in one line."""
        parts = (f"{share:.3g} of {name}" for share, name in zip(self.shares, self.names, strict=True))
        states = self.members[self.states].gives_states
        return f"teachers: {', '.join(parts)}" + (f"; states of {self.names[self.states]}" if states else "")

    @property
    def lead(self) -> GivenTeacher:
        """The teacher whose states are read."""
        return self.members[self.states]

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint that a student without its own starts from: that of the states, or else the first."""
        found = (member.checkpoint for member in (self.lead, *self.members))
        return next((checkpoint for checkpoint in found if checkpoint is not None), None)

    @property
    def target(self) -> Target:
        """The task and the classes of the first teacher, which the student takes over."""
        return self.members[0].target

    @property
    def trained(self) -> Trained:
        """The training of the teacher that the student starts from, as its folder describes it."""
        checkpoint = self.checkpoint
        return Trained.of(checkpoint.config if checkpoint is not None else None)

    @property
    def contents(self) -> dict[str, str]:
        """The digest of the teacher as "teacher", or of several as "teacher 1", "teacher 2", ..."""
        if len(self.members) == 1:
            return {PART.strip(): self.members[0].content}
        return {f"{PART}{number}": member.content for number, member in enumerate(self.members, 1)}

    @property
    def gaps(self) -> bool:
        """True if rows may lack an answer: all teachers with a weight are files of answers."""
        return all(member.gaps for member, share in zip(self.members, self.shares, strict=True) if share)

    @property
    def store(self) -> str:
        """The kind of the first teacher that is stored, in words."""
        stored = [member for member in self.members if member.checkpoint is None]
        return "file" if (stored or self.members)[0].gaps else "cache"

    @property
    def files(self) -> list[StoredTeacher]:
        """The files of answers among the teachers."""
        return [member.cache for member in self.members if member.cache is not None and member.gaps]

    def join(self, signals: Sequence[StoredTeacher]) -> StoredTeacher:
        """Return the stored answers of all members as one teacher.

        Args:
            signals: of each of the K members.
        """
        return signals[0] if len(signals) == 1 else TeacherMean(signals, list(self.shares), states_from=self.states)

    def max_lengths(self, given: int | None, say: Say) -> list[int]:
        """Return the length in tokens at which each teacher cuts texts; see `GivenTeacher.max_length`."""
        return [member.max_length(given, say) for member in self.members]

    def check_caches(self, given: int | None, spec: MethodSpec, max_lengths: Sequence[int]) -> None:
        """Refuse caches that do not fit, all of them before the first teacher runs.

        `RailkdError` is raised for another length, another teacher, or states that are not stored and cannot be added.

        Args:
            given: length in tokens that the user gives; None if it is left out.
            spec: the method.
            max_lengths: of `max_lengths`.
        """
        for member, length in zip(self.members, max_lengths, strict=True):
            member.check_max_length(given)
            if spec.needs_teacher:
                member.check_same(length)
        stored = self.lead.cache
        if spec.pooling and stored is not None and (stored.poolings or self.lead.checkpoint is None):
            stored.check_pooling(spec.pooling)

    def only_stored(self, rows: Dataset, max_lengths: Sequence[int]) -> GivenTeachers:
        """Return the teachers without the checkpoints whose caches hold all rows, after a check of these caches.

        Args:
            rows: the training rows.
            max_lengths: of `max_lengths`.
        """
        keys, found = keys_of(rows), []
        for member, length in zip(self.members, max_lengths, strict=True):
            warm = member.cache is not None and (member.checkpoint is None or not len(member.cache.missing(keys)))
            if warm:
                member.check_same(length)
            found.append(GivenTeacher(None, member.cache) if warm else member)
        return replace(self, members=tuple(found))

    def answered(self, rows: Dataset) -> np.ndarray:
        """Return which rows (N,) have an answer: every cache holds them, and a teacher with a weight answers them.

        Args:
            rows: N texts.
        """
        keys = keys_of(rows)
        there = np.ones((len(self.members), len(keys)), dtype=bool)
        held = there.copy()
        for number, member in enumerate(self.members):
            if member.checkpoint is None and member.cache is not None:
                there[number] = member.cache.find(keys) >= 0
                held[number] = there[number] | member.gaps
        return np.asarray((self.shares @ there > 0) & held.all(axis=0))

    def logits(self, rows: Dataset, max_lengths: Sequence[int]) -> tuple[np.ndarray, float]:
        """Return the outputs of the mean on rows that have an answer. One model is in memory at a time.

        Args:
            rows: B texts.
            max_lengths: of `max_lengths`.

        Returns:
            (B, C), in the order of `target`, and the seconds that the models ran.
        """
        outputs, weights, seconds = [], np.repeat(self.shares[:, None], len(rows), axis=1), 0.0  # weights: (K, B)
        order = match_labels(self._infos, self.names)
        for number, (member, length) in enumerate(zip(self.members, max_lengths, strict=True)):
            if member.checkpoint is not None:
                model, tokenizer = member.checkpoint.frozen(), member.checkpoint.tokenizer
                start = time.perf_counter()
                found = predict_logits(model, tokenizer, rows, max_length=length)
                seconds += time.perf_counter() - start
                del model
            else:
                assert member.cache is not None
                found, _, there = member.cache.answers(keys_of(rows), None)
                weights[number] *= True if there is None else there
            outputs.append(np.asarray(found, dtype=np.float32)[:, order[number]])
        if len(outputs) == 1:
            return outputs[0], seconds
        return mean_of_outputs(self.target.task, outputs, weights / weights.sum(axis=0)), seconds

    def leave_out_unanswered(self, splits: Splits, say: Say) -> Splits:
        """Say how many rows files of answers lack, and leave out texts that have neither an answer nor a label.

        Args:
            splits: the tables of a distillation.
            say: receives a line for each file and table with such rows.

        Returns:
            The tables.
        """
        one, kept = len(self.members) == 1, splits
        ends = {"training rows": "their labels alone teach", "unlabelled texts": "they are left out"}
        for (what, end), table in zip(ends.items(), (splits.train, splits.unlabelled), strict=True):
            if table is None:
                continue
            keys, of = keys_of(table.rows), f"of {len(table):,} {what}"
            for file in [] if one else self.files:
                if lacking := len(file.missing(keys)):
                    say(f"{file.path}: no answer to {lacking:,} {of}; the other teachers have its weight there")
            there = np.flatnonzero(self.answered(table.rows)) if self.gaps else np.arange(len(table))
            if len(there) == len(table):
                continue
            who = str(self.files[0].path) if one else "all teachers"
            say(f"{who}: no answer to {len(table) - len(there):,} {of}; {end}")
            if table is splits.unlabelled:
                kept = splits.keep_unlabelled(there)
        return kept

    def sharing(self) -> AbstractContextManager[None]:
        """Return a context in which all callers share one model of the teacher; of several none is kept."""
        return self.members[0].sharing() if len(self.members) == 1 else nullcontext()

    @property
    def _infos(self) -> list[TeacherInfo]:
        targets = [member.target for member in self.members]
        return [TeacherInfo(0, 0, target.space.names, target.task.problem_type, 0) for target in targets]
