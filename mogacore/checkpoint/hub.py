"""Weight files and configs of the Hugging Face hub, named ``hf-hub:USER/NAME``; downloaded by huggingface_hub."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

from mogacore.errors import UserError

HUB_SCHEME = 'hf-hub:'
WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
CONFIG = 'config.json'
NAME = re.compile(r'(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>.+))?')


def parse_hub_name(source: str) -> tuple[str, str | None, str | None]:
    """Repository, revision and file of a name ``hf-hub:USER/NAME[@REVISION][/FILE]``; None for what it omits.

    Raises:
        UserError: If the name has another form, or huggingface_hub is missing.
    """
    match = NAME.fullmatch(source.removeprefix(HUB_SCHEME))
    if not match or '..' in PurePosixPath(match['file'] or '').parts:
        raise UserError(f'{source} is no name of the Hugging Face hub: write {HUB_SCHEME}USER/NAME[@REVISION][/FILE]')
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise UserError(f'{source} needs huggingface_hub: pip install huggingface_hub, or give a local file') from None
    return match['repo'], match['revision'], match['file']


def hub_weights(source: str) -> Path:
    """Local path of a weight file of the hub, which is downloaded unless it exists.

    Args:
        source: See :func:`parse_hub_name`; without FILE, the first of ``WEIGHTS`` that the repository has.

    Raises:
        UserError: If the name is invalid, huggingface_hub is missing, or the download fails.
    """
    file = parse_hub_name(source)[2]
    for name in (file,) if file else WEIGHTS:
        if path := _download(source, name):
            return path
    raise UserError(
        f'{source} has no {file or " or ".join(WEIGHTS)}: write {HUB_SCHEME}USER/NAME/FILE for another file'
    )


def hub_config(source: str) -> dict:
    """Content of ``config.json`` of a repository of the hub.

    Raises:
        UserError: As in :func:`hub_weights`; if the file is missing or no JSON object.
    """
    path = _download(source, CONFIG)
    if path is None:
        raise UserError(f"{source} has no {CONFIG}: pass a model's name, and {source} as its checkpoint")
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:  # the latter for thousands of nested lists
        raise UserError(f'{CONFIG} of {source} is no JSON ({error}): pass a model name and its checkpoint') from None
    if not isinstance(content, dict):
        raise UserError(f'{CONFIG} of {source} is no JSON object: pass a model name and its checkpoint')
    return content


def _download(source: str, file: str) -> Path | None:
    """Local path of a file of the repository; None if it does not have the file."""
    repo, revision, _ = parse_hub_name(source)
    import huggingface_hub
    from huggingface_hub.utils import EntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
    # The errors of the hub, its HTTP client and the disk have no common base. An EntryNotFoundError that is also a
    # FileNotFoundError means that there is no connection, for a file that is not in the cache.
    except Exception as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, FileNotFoundError):
            return None
        reason = error
    line = str(reason).strip().partition('\n')[0] or type(reason).__name__
    raise UserError(
        f'{source}: {file} cannot be downloaded ({line}): check the name and the network, or give the path of a file'
    ) from None
