"""The method is held to the laws of railkd: python -m pytest"""

from railkd_relational import Relational

from railkd.testing import ObjectiveLaws


class TestRelational(ObjectiveLaws):
    method = Relational
