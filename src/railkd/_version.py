"""The version, in one place: packaging, ``railkd --version`` and run folders all read it here."""

__version__ = "0.1.0"
