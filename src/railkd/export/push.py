"""Uploads the folder of a model to the hub, with its card and the files that mean something to others.

The list of files by which railkd knows its own, and the record of an export, which has paths of this machine, stay. The
figures of the record are in the card.
"""

from __future__ import annotations

import re
from pathlib import Path

from railkd.errors import RailkdError, RunFailed
from railkd.export.layout import Shipped
from railkd.runtime.ownership import LOCK, MARK
from railkd.runtime.words import shortened

#: Names of repositories, as the hub takes them.
_NAME, _LONGEST = re.compile(r"(?!.*(?:--|\.\.))[\w-][\w.-]*(?:/[\w-][\w.-]*)?"), 96
#: Patterns of files that are not uploaded.
_OURS = [MARK, f"*/{MARK}", LOCK, f"*/{LOCK}", Shipped(Path()).record.name]


def check_push(name: str, flag: str, *, token_needed: bool = True) -> None:
    """Refuse a push that cannot work, before the job starts. The network is not asked.

    Args:
        name: of the repository.
        flag: that named it, for the message.
        token_needed: False for a download, which may be of a public repository.

    Raises:
        RailkdError: the name cannot be one of the hub, no token is stored, or the hub must not be asked.
    """
    from huggingface_hub import constants, get_token

    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise RailkdError(f"{flag}: expected a name such as org/name, got {shortened(name)!r}.")
    if constants.HF_HUB_OFFLINE:
        raise RailkdError(f"{flag}: the hub is not asked while HF_HUB_OFFLINE is set. Fix: unset it.")
    if token_needed and get_token() is None:
        raise RailkdError(f"{flag}: no token of the hub is stored. Fix: run 'hf auth login', or set HF_TOKEN.")


def push(
    folder: Path, name: str, *, token: str | None = None, private: bool | None = None, endpoint: str | None = None
) -> str:
    """Upload a folder as one commit. The repository is created if it does not exist.

    Args:
        folder: of the model.
        name: of the repository, such as ``org/name``.
        token: of the hub; None takes the one that ``hf auth login`` stored.
        private: a new repository is private; None: public, unless its organisation sets another default.
        endpoint: address of the hub; None takes the usual one.

    Returns:
        The address of the repository.

    Raises:
        RunFailed: the hub refuses, or cannot be reached. The folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token)
    try:
        made = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message="Upload a model of railkd",
            ignore_patterns=_OURS,
        )
    except Exception as error:  # the hub client has many kinds of error; each means the same to the user
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunFailed(
            f"'{folder}' is complete, but it was not uploaded to '{name}': {reason[:300]}. Fix: upload it by "
            f"'hf upload {name} {folder}'"
        ) from error
    return str(made)
