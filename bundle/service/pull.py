# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Get images from an archive: by DICOMweb into the queue, or by C-FIND and C-MOVE to the listener."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from bundle.service.intake import Intake, RefusedError
from bundle.service.job_queue import JobQueue
from bundle.service.sender import UnreachableError, associate
from bundle.service.settings import Node, Settings, Source

__all__ = ["Pulled", "Wanted", "pull"]

logger = logging.getLogger(__name__)
_PENDING = (0xFF00, 0xFF01)


@dataclass(frozen=True)
class Wanted:
    """
    What to ask an archive for.

    Args:
        dates: of studies, a day or a range as DICOM writes it, such as ``20261101-20261130``.
        study: Study Instance UID.
        modalities: of series.
    """

    dates: str = ""
    study: str = ""
    modalities: Sequence[str] = field(default=("CR", "DX", "MG", "US"))


@dataclass
class Pulled:
    """How many images were new, known before, and refused or not sent."""

    new: int = 0
    known: int = 0
    refused: int = 0


def pull(settings: Settings, queue: JobQueue, name: str, wanted: Wanted) -> Pulled:
    """
    Get the images that the queue does not know yet.

    From a node they come by C-STORE, so the listener must run, and be one of the node's peers.

    Args:
        settings: of the service.
        queue: knows which images came before.
        name: of the source.
        wanted: which images.

    Returns:
        how many images there were.

    Raises:
        ValueError: When no source has this name, neither dates nor a study are given, or a node knows no C-FIND or
            C-MOVE.
        OSError: When the source does not answer, or refuses.
    """
    sources = {source.name: source for source in settings.sources}
    if name not in sources:
        raise ValueError(f"source must be one of {', '.join(sources) or 'those in the settings, which name none'}.")
    if not wanted.dates and not wanted.study:
        raise ValueError("dates or a study must be given; the whole archive is too much.")
    if sources[name].url:
        return _pull_dicomweb(settings, queue, sources[name], wanted)
    return _pull_node(settings, queue, sources[name], wanted)


def _pull_dicomweb(settings: Settings, queue: JobQueue, source: Source, wanted: Wanted) -> Pulled:
    session = requests.Session()
    if settings.tls is not None and settings.tls.authorities is not None:
        session.verify = str(settings.tls.authorities)
    if source.authorization is not None:
        session.headers["Authorization"] = source.authorization.read_text(encoding="utf-8").strip()
    client, pulled = DICOMwebClient(source.url, session, timeout=60), Pulled()
    intake = Intake(settings, queue, "pulling")  # the listener empties its own when it starts
    client.set_http_retry_params(retry=False)  # whoever asked may ask again
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)  # it names studies
    given = {"StudyDate": wanted.dates, "StudyInstanceUID": wanted.study}
    try:
        for modality in wanted.modalities:
            filters = {key: value for key, value in {**given, "ModalitiesInStudy": modality}.items() if value}
            for study in _uids(partial(client.search_for_studies, search_filters=filters), "0020000D"):
                of_modality = partial(client.search_for_series, study, search_filters={"Modality": modality})
                for series in _uids(of_modality, "0020000E"):
                    for image in _uids(partial(client.search_for_instances, study, series), "00080018"):
                        if queue.knows(image):
                            pulled.known += 1
                            continue
                        kind = (("application/dicom", "*"),)  # as it is stored
                        _take(intake, client.retrieve_instance(study, series, image, kind), source.name, pulled)
    except requests.RequestException as error:  # its words hold the address, which may name a study
        raise OSError(f"{source.name} does not answer as DICOMweb should: {type(error).__name__}.") from None
    return pulled


def _uids(search: Callable[..., Sequence[dict[str, Any]]], tag: str) -> list[str]:
    """Return one element of each answer in the DICOM JSON model (PS3.18 F.2), page by page."""
    found: dict[str, None] = {}
    while True:
        answers = search(offset=len(found))
        page = [answer[tag]["Value"][0] for answer in answers if answer.get(tag, {}).get("Value")]
        if set(page) <= set(found):  # also from a server that knows no pages
            return list(found)
        found.update(dict.fromkeys(page))


def _take(intake: Intake, image: Dataset, name: str, pulled: Pulled) -> None:
    path = intake.partial / f"pulled-{os.urandom(8).hex()}"
    try:
        image.save_as(path, enforce_file_format=True)
        if intake.take(path, name):
            pulled.new += 1
        else:
            pulled.known += 1
    except RefusedError as error:
        logger.warning("refused an object from %s: %s", name, error)
        pulled.refused += 1
    finally:
        path.unlink(missing_ok=True)


def _pull_node(settings: Settings, queue: JobQueue, source: Source, wanted: Wanted) -> Pulled:
    node, pulled = Node(source.ae_title, source.host, source.port, source.tls), Pulled()
    find, move = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove
    syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    association = associate(
        node, settings, [(str(model), str(syntax)) for model in (find, move) for syntax in syntaxes]
    )
    try:
        studies = _query("STUDY", StudyInstanceUID=wanted.study, StudyDate=wanted.dates)
        for study in _answers(association, studies, node):
            within = {"StudyInstanceUID": study.StudyInstanceUID}
            for series in _answers(association, _query("SERIES", **within, SeriesInstanceUID="", Modality=""), node):
                if series.get("Modality") not in wanted.modalities:
                    continue
                within["SeriesInstanceUID"] = series.SeriesInstanceUID
                images = list(_answers(association, _query("IMAGE", **within, SOPInstanceUID=""), node))
                unknown = sum(not queue.knows(image.SOPInstanceUID) for image in images)
                pulled.known += len(images) - unknown
                if unknown:
                    failed = _move(association, _query("SERIES", **within), settings.ae_title, node)
                    pulled.refused += min(failed, unknown)
                    pulled.new += unknown - min(failed, unknown)
    finally:
        if association.is_established:
            association.release()
    return pulled


def _query(level: str, **elements: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in elements.items():
        setattr(query, keyword, value)
    return query


def _answers(association: Any, query: Dataset, node: Node) -> Iterator[Dataset]:
    """Yield what a node finds, after it has said all."""
    found = []
    for status, answer in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
        if status.get("Status") in _PENDING and answer is not None:
            found.append(answer)
        elif status.get("Status") != 0:
            raise UnreachableError(f"{node.ae_title} did not answer the query{_code(status)}.")
    yield from found


def _move(association: Any, query: Dataset, ae_title: str, node: Node) -> int:
    """Have a series sent to this node and return how many of its images were not."""
    status = Dataset()
    for status, _ in association.send_c_move(query, ae_title, StudyRootQueryRetrieveInformationModelMove):
        if "Status" not in status:
            break
    if status.get("Status") not in (0, 0xB000):  # 0xB000: some were not sent
        raise UnreachableError(f"{node.ae_title} did not send what it has{_code(status)}; does it know {ae_title}?")
    return int(status.get("NumberOfFailedSuboperations") or 0)


def _code(status: Dataset) -> str:
    return f", status 0x{status.Status:04X}" if "Status" in status else ""
