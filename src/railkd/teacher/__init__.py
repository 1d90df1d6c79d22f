"""The teacher, live or from its cache: one protocol, equal signals."""

from __future__ import annotations

from railkd.teacher.cache import TeacherCache
from railkd.teacher.live import LiveTeacher
from railkd.teacher.protocol import Teacher, TeacherInfo
from railkd.teacher.writer import CacheWriter

__all__ = ["CacheWriter", "LiveTeacher", "Teacher", "TeacherCache", "TeacherInfo"]
