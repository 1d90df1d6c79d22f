"""The teacher, live, from its cache or from a file of its answers: one protocol, equal signals."""

from __future__ import annotations

from railkd.teacher.cache import TeacherCache
from railkd.teacher.labels import TeacherLabels
from railkd.teacher.live import LiveTeacher
from railkd.teacher.mean import TeacherMean
from railkd.teacher.protocol import Teacher, TeacherInfo
from railkd.teacher.stored import StoredTeacher
from railkd.teacher.writer import CacheWriter

__all__ = [
    "CacheWriter",
    "LiveTeacher",
    "StoredTeacher",
    "Teacher",
    "TeacherCache",
    "TeacherInfo",
    "TeacherLabels",
    "TeacherMean",
]
