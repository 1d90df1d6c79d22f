"""Uploads the folder of a model to the hub, with its card and every file in it."""

from __future__ import annotations

from pathlib import Path

from railkd.errors import RunFailed


def push(
    folder: Path, name: str, *, token: str | None = None, private: bool | None = None, endpoint: str | None = None
) -> str:
    """Upload a folder as one commit. The repository is created if it does not exist.

    Args:
        folder: of the model.
        name: of the repository, such as ``org/name``.
        token: of the hub; None takes the one that ``hf auth login`` stored.
        private: a new repository is private; None takes the default of its owner.
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
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Upload a model of railkd")
    except Exception as error:  # the hub client has many kinds of error; each means the same to the user
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunFailed(
            f"'{folder}' is complete, but it was not uploaded to '{name}': {reason[:300]}. Fix: upload it by "
            f"'hf upload {name} {folder}'"
        ) from error
    return str(made)
