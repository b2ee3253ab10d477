# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Results on their way to the archive: C-STORE until every destination has taken every one."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE

from bundle.service.job_queue import JobQueue
from bundle.service.settings import Node, Settings, Tls

__all__ = ["RefusedResultError", "UnreachableError", "associate", "send_files", "send_job"]

logger = logging.getLogger(__name__)


class UnreachableError(OSError):
    """The destination takes nothing now, and may later."""


class RefusedResultError(ValueError):
    """The destination will not take this result."""


def send_job(job: int, settings: Settings, queue: JobQueue) -> None:
    """
    Send what is unsent of a job; afterwards it is done, waits for another try, or is parked.

    Every destination and every result is tried, whatever happened to those before. The job is parked only when nothing
    is left that a destination may take later.

    Args:
        job: number of the job.
        settings: of the service.
        queue: where the job is.
    """
    refused, again = [], False
    for node in settings.destinations:
        name = f"{node.ae_title}@{node.host}:{node.port}"
        unsent = {settings.state_dir / row["file"]: row["uid"] for row in queue.unsent(job, name)}
        files = [file for file in unsent if file.is_file()]
        if len(files) < len(unsent):
            refused.append(f"{len(unsent) - len(files)} results for {node.ae_title} are no longer on disk.")
        if not files:
            continue
        try:
            for file in send_files(files, node, settings):
                queue.delivered(unsent[file], name)
        except OSError as error:  # also of the certificates
            logger.warning("job %d: %s", job, error)
            again = True
        except RefusedResultError as error:
            logger.error("job %d: %s", job, error)
            refused.append(str(error))
    if again:
        queue.postpone(job, settings.retry_seconds)
    elif refused:
        queue.park(job, " ".join(refused))
    else:
        queue.finish(job)
        logger.info("job %d: all results are delivered", job)


def send_files(files: Sequence[Path], node: Node, settings: Settings) -> Iterator[Path]:
    """
    Send DICOM files over one association, and yield each that the node has acknowledged.

    Args:
        files: to send, in this order.
        node: that takes them.
        settings: AE title and certificates of the caller.

    Raises:
        UnreachableError: When there is no association, it ends early, or, after all are sent, the node had no room for
            a file.
        RefusedResultError: When, after all are sent, the node refused files for what they are, and had room for the
            others.
    """
    metas = [pydicom.filereader.read_file_meta_info(file) for file in files]
    contexts = sorted({(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas})
    association = associate(node, settings, contexts)
    refused, no_room = [], []
    try:
        for file in files:
            try:
                status = association.send_c_store(file)
            except (RuntimeError, ValueError) as error:  # the association is gone, or no context was accepted
                if not association.is_established:
                    raise UnreachableError(f"{node.ae_title} ended the association: {type(error).__name__}.") from None
                refused.append(f"{node.ae_title} does not accept {file.stem}'s kind of object.")
                continue
            if "Status" not in status:
                raise UnreachableError(f"{node.ae_title} ended the association.")
            code = status.Status
            if (code >> 12 in (0xA, 0xC) and code >> 8 != 0xA7) or code in (0x0122, 0x0124, 0x0210):
                refused.append(f"{node.ae_title} refused {file.stem} with status 0x{code:04X}.")
            elif code != 0 and code >> 12 != 0xB:  # warnings are acceptances (PS3.4 B.2.3)
                no_room.append(f"{node.ae_title} has no room, status 0x{code:04X}.")
            else:
                yield file
    finally:
        if association.is_established:
            association.release()
    if no_room:
        raise UnreachableError(no_room[0])
    if refused:
        raise RefusedResultError(" ".join(refused))


def associate(node: Node, settings: Settings, contexts: Sequence[tuple[str, str]]) -> Any:
    """
    Return an established association.

    Args:
        node: to call.
        settings: AE title and certificates of the caller.
        contexts: abstract and transfer syntax of each proposed presentation context.

    Raises:
        UnreachableError: When the node cannot be reached or rejects the association.
        RefusedResultError: When the node accepts none of the contexts.
    """
    caller = AE(settings.ae_title)
    caller.connection_timeout, caller.acse_timeout = 10, 30
    caller.dimse_timeout = caller.network_timeout = 60
    for abstract, transfer in contexts:
        caller.add_requested_context(abstract, transfer)
    tls = (_client_context(settings.tls), node.host) if node.tls else None
    association = caller.associate(node.host, node.port, ae_title=node.ae_title, tls_args=tls)
    if not association.is_established:
        if association.rejected_contexts:  # then pynetdicom has ended the association
            raise RefusedResultError(f"{node.ae_title} does not accept any of the kinds of object in question.")
        why = "rejected the association" if association.is_rejected else "cannot be reached"
        raise UnreachableError(f"{node.ae_title} {why}.")
    return association


def _client_context(tls: Tls | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.authorities if tls is not None else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
