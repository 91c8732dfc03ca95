"""Model folders on the Hugging Face hub, under names like `hf:owner/name` or `hf:owner/name@v2`."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from leandetr.errors import CheckpointError, MissingExtra, NetworkUnavailable

PREFIX = "hf:"
REFERENCE = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
CARD = "README.md"


@dataclass(frozen=True)
class Reference:
    """A repository of the hub, and a branch, tag or commit of it; None means the newest."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return PREFIX + self.repository + (f"@{self.revision}" if self.revision else "")

    @property
    def page(self) -> str:
        """Where a person sees the files."""
        return f"https://huggingface.co/{self.repository}/tree/{self.revision or 'main'}"


def is_reference(model: str | Path) -> bool:
    """Whether `model` names a repository of the hub."""
    return str(model).startswith(PREFIX)


def parse(text: str) -> Reference:
    """The repository that `text` names. Raises `CheckpointError`."""
    found = REFERENCE.fullmatch(text)
    if found is None:
        raise CheckpointError(
            f"expected hf:owner/name or hf:owner/name@revision, got '{text}'; "
            "for a folder on this machine leave out hf:"
        )
    return Reference(found["repository"], found["revision"])


def download(reference: Reference, files: Sequence[str]) -> Path:
    """A folder with these files of a repository, in the hub's own cache.

    Without network, what is in the cache is used. Raises `NetworkUnavailable` where it is not, and
    `CheckpointError` for a repository that is not there, not yours to see, or lacks a file.
    """
    hub = _hub()
    with _errors(hub, reference, f"fetch {', '.join(files)} by hand into a folder from"):
        folder = hub.snapshot_download(
            reference.repository,
            revision=reference.revision,
            allow_patterns=list(files),
            library_name="leandetr",
        )
    missing = [name for name in files if not (Path(folder) / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{reference} is not a LeanDETR model: it has no {', '.join(missing)}; if it is of "
            f"another library, fetch its weights from {reference.page} and type: "
            "leandetr convert FILE --out FOLDER"
        )
    return Path(folder)


def upload(folder: Path, reference: Reference, *, private: bool, message: str) -> str:
    """Put a folder's files into a repository, made if it is not there; returns its address.

    A model card that is there already is left as it is. Raises `CheckpointError` without the right
    to write there, `NetworkUnavailable` without network.
    """
    api = _hub().HfApi(library_name="leandetr")
    with _errors(_hub(), reference, "upload the files of the model folder by hand to"):
        address = api.create_repo(reference.repository, private=private, exist_ok=True)
        kept = [CARD] if api.file_exists(reference.repository, CARD) else []
        api.upload_folder(
            repo_id=reference.repository,
            folder_path=folder,
            commit_message=message,
            ignore_patterns=kept,
        )
    return str(address)


@contextlib.contextmanager
def _errors(hub: ModuleType, reference: Reference, by_hand: str) -> Iterator[None]:
    """What the hub refuses is one sentence; `by_hand` is what to do without a network."""
    kinds = hub.errors
    repository = reference.repository
    try:
        yield
    except kinds.GatedRepoError as error:
        raise CheckpointError(
            f"{reference} asks for permission; accept its terms at {reference.page}, then type: "
            "hf auth login"
        ) from error
    except kinds.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"there is no model {repository} on the Hugging Face hub, or it is private; check the "
            "name, or type: hf auth login"
        ) from error
    except kinds.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{repository} has no revision '{reference.revision}'; leave out "
            f"@{reference.revision} for the newest"
        ) from error
    except kinds.HFValidationError as error:
        reason = str(error).split(":")[0].rstrip(".")
        raise CheckpointError(f"{reference} cannot be a name on the hub ({reason})") from error
    except (kinds.HTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403) or isinstance(error, kinds.LocalTokenNotFoundError):
            raise CheckpointError(
                f"you may not do this with {repository}; log in with a token that may: "
                "hf auth login"
            ) from error
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise NetworkUnavailable(
            f"cannot reach {reference} ({reason}); {by_hand} {reference.page}"
        ) from error


def _hub() -> ModuleType:
    """The module huggingface_hub."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise MissingExtra("the Hugging Face hub", "huggingface-hub", "hub") from error
    return huggingface_hub
