# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What one YAML file says about the service; a wrong word in it is an error with the place where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from bundle.service.settings_check import check_meaning, yaml_content

__all__ = ["Audit", "Health", "Node", "Page", "Peer", "ServedModel", "Settings", "Source", "Tls", "load_settings"]


@dataclass(frozen=True)
class Node:
    """
    A DICOM node that this one calls.

    Args:
        ae_title: of the node, 1 to 16 characters.
        host: name or address.
        port: TCP port.
        tls: call it over TLS, with the certificate of ``Settings.tls``.
    """

    ae_title: str
    host: str
    port: int
    tls: bool = False


@dataclass(frozen=True)
class Peer:
    """
    A DICOM node that may call this one.

    Args:
        ae_title: that it calls itself by.
        address: IP address that it calls from; empty for any.
    """

    ae_title: str
    address: str = ""


@dataclass(frozen=True)
class Tls:
    """
    Files in PEM format.

    Args:
        certificate: of this node.
        key: private key of the certificate.
        authorities: certificates that a peer's certificate must be signed by; empty asks peers for none and trusts the
            system's when calling.
    """

    certificate: Path
    key: Path
    authorities: Path | None = None


@dataclass(frozen=True)
class ServedModel:
    """
    An inference workflow that is kept loaded.

    Args:
        name: names its folder, letters, digits and ``_``.
        args_file: what ``monai.bundle run --args_file`` takes, or ``configs/inference.json`` of a built bundle.
        settings: what else would stand on that command line, such as ``model_dir``.
        modalities: Modality (0008,0060) of the images that it is for; empty for all.
    """

    name: str
    args_file: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """
    An archive that images can be pulled from: a DICOMweb address, or a node that is asked by C-FIND and C-MOVE.

    Args:
        name: that the command line calls it by.
        url: DICOMweb root, ``http://`` or ``https://``; empty for a node.
        authorization: file with the value of the ``Authorization`` header of DICOMweb requests.
        ae_title: of the node; it must know this one's title and address to send what is asked for.
        host: of the node.
        port: of the node.
        tls: call the node over TLS, with the certificate of ``Settings.tls``.
    """

    name: str
    url: str = ""
    authorization: Path | None = None
    ae_title: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False


@dataclass(frozen=True)
class Page:
    """
    The worklist in a browser of the same machine.

    Args:
        host: address to listen on; one of the loopback, since the page knows no users.
        port: TCP port to listen on.
        readers: names of those who look at it, each of whom gets an address of their own; empty for one address.
        feedback: whether readers may agree, disagree and correct boxes; otherwise the page only shows.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    readers: tuple[str, ...] = ()
    feedback: bool = False


@dataclass(frozen=True)
class Health:
    """
    ``/healthz`` and ``/metrics``, which hold nothing of patients.

    Args:
        host: address to listen on.
        port: TCP port to listen on.
    """

    host: str = "127.0.0.1"
    port: int = 8091


@dataclass(frozen=True)
class Audit:
    """
    The log of who came and what became of it, in ``state_dir/audit``.

    Args:
        max_bytes: of one file, before the next is begun.
        files: how many are kept for each process.
        identities: whether the SOP Instance UIDs of objects are written; otherwise only how many there were.
    """

    max_bytes: int = 10**7
    files: int = 20
    identities: bool = False


@dataclass(frozen=True)
class Settings:
    """
    The service.

    Args:
        state_dir: queue, images and results; made if missing, and readable by its owner alone.
        models: workflows to run on each study.
        destinations: nodes that results are sent to.
        ae_title: of this node; callers must use it.
        host: address to listen on.
        port: TCP port to listen on.
        peers: who may send; empty for everyone.
        tls: certificates; ``None`` listens without TLS.
        sources: archives that images can be pulled from.
        page: the worklist; ``None`` shows none.
        health: ``/healthz`` and ``/metrics``; ``None`` answers neither.
        audit: how large the audit log may become, and what it holds.
        watch: folder whose DICOM files are taken in as if they were sent; they stay where they are.
        quiet_seconds: a study is complete when nothing new came for so long.
        max_object_bytes: a larger object ends its association.
        max_associations: callers at once.
        max_associations_per_address: callers at once from one address, so that one leaves places for others.
        instances_per_minute: of one address; more are refused as out of resources, which senders repeat later.
        min_free_bytes: free disk space below which images are refused as out of resources.
        max_attempts: how often a study may end the worker before it is parked.
        retry_seconds: before results are sent again to a node that did not take them; doubled up to ten minutes.
        keep_days: images and results of finished and parked studies are removed afterwards; 0 keeps them.
    """

    state_dir: Path
    models: tuple[ServedModel, ...]
    destinations: tuple[Node, ...] = ()
    ae_title: str = "BUNDLE"
    host: str = "127.0.0.1"
    port: int = 11112
    peers: tuple[Peer, ...] = ()
    tls: Tls | None = None
    sources: tuple[Source, ...] = ()
    page: Page | None = None
    health: Health | None = None
    audit: Audit = field(default_factory=Audit)
    watch: Path | None = None
    quiet_seconds: float = 10
    max_object_bytes: int = 2**29
    max_associations: int = 32
    max_associations_per_address: int = 24
    instances_per_minute: int = 6000
    min_free_bytes: int = 2**30
    max_attempts: int = 3
    retry_seconds: float = 5
    keep_days: float = 30


_PARTS: dict[str, type] = {
    "models": ServedModel,
    "destinations": Node,
    "peers": Peer,
    "tls": Tls,
    "page": Page,
    "health": Health,
    "audit": Audit,
    "sources": Source,
}
_PATHS = {"state_dir", "watch", "certificate", "key", "authorities", "args_file", "authorization"}


def load_settings(path: str | Path) -> Settings:
    """
    Return the settings of a YAML file; paths in it are relative to its folder.

    Args:
        path: file whose keys are the arguments of :py:class:`Settings`, lists and mappings of those of its parts.

    Raises:
        ValueError: When the file is no YAML, a key is unknown, missing or there twice, or a value has the wrong kind,
            or makes no sense, see :py:func:`bundle.service.settings_check.check_meaning`.
    """
    path = Path(path)
    content = yaml_content(path)
    settings: Settings = _built(Settings, content, path.name, path.resolve().parent)
    check_meaning(settings, path.name)
    return settings


def _built(kind: type, content: Any, where: str, folder: Path) -> Any:
    """Return the dataclass that a mapping describes."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: a mapping is needed, got {type(content).__name__}.")
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(map(str, content)) - set(known)):
        raise ValueError(f"{where}: '{unknown[0]}' is unknown, known are {', '.join(known)}.")
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in content]:
        raise ValueError(f"{where}: '{missing[0]}' is missing.")
    return kind(**{name: _value(known[name], value, f"{where}: {name}", folder) for name, value in content.items()})


def _value(slot: Any, value: Any, where: str, folder: Path) -> Any:
    if value is None:
        if "None" in str(slot.type):
            return None
        raise ValueError(f"{where} must have a value.")
    part = _PARTS.get(slot.name) if slot.type != "bool" else None  # a node is called with tls or without
    many, named = str(slot.type).startswith("tuple"), "Mapping" in str(slot.type)
    if many and not isinstance(value, list):
        raise ValueError(f"{where} must be a list.")
    if named and not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping.")
    if part is not None and many:
        return tuple(_built(part, item, f"{where}[{i}]", folder) for i, item in enumerate(value))
    if part is not None:
        return _built(part, value, where, folder)
    if slot.name in _PATHS:
        return folder / Path(str(value)).expanduser()
    if many:
        return tuple(str(item) for item in value)
    for word, kind in (("bool", bool), ("int", int), ("float", (int, float)), ("str", str)):
        if slot.type == word and (not isinstance(value, kind) or (word != "bool" and isinstance(value, bool))):
            raise ValueError(f"{where} must be of type {word}, got '{value}'.")
    return value
