"""Keeps transformers quiet while it loads a model."""

from __future__ import annotations


class quiet_transformers:
    """Keep transformers' loading report and progress bars away from the user's screen."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._level, self._bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bars:
            logging.enable_progress_bar()
