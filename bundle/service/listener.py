# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The DICOM node that accepts C-ECHO and C-STORE, and lets no caller take more than its share."""

from __future__ import annotations

import logging
import ssl
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from bundle.reading.dicom.decoders import DECODERS
from bundle.service.audit import AuditLog
from bundle.service.callers import CallerLog
from bundle.service.intake import IMAGE_CLASSES, Intake, RefusedError
from bundle.service.passing import NoRoomError
from bundle.service.readiness import intake_problem
from bundle.service.settings import Settings, Tls

__all__ = ["Listener", "server_context"]

logger = logging.getLogger(__name__)

# PS3.7 C.4.2.1: a sender repeats "out of resources" later, and gives up on the others
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
PROCESSING_FAILURE = 0x0110  # PS3.7 annex C: processing failure
_LARGEST_PDU = 2**20  # ours are announced as 16 KiB; association requests with many contexts are larger
_LARGEST_MESSAGE = 2**16  # of what pynetdicom holds in memory: commands, and data sets other than those that are stored
_MOST_MESSAGES = 16  # of a caller that wait for their answer
_SILENCE = 30.0  # seconds
_GREETING = 10.0  # seconds until a caller that has connected must have asked for an association


class Listener:
    """
    Accept images of the peers that the settings name.

    Args:
        settings: of the service.
        intake: takes what is accepted.
    """

    def __init__(self, settings: Settings, intake: Intake) -> None:
        self._settings, self._intake = settings, intake
        self._audit = AuditLog(settings.state_dir, "listen", settings.audit)
        self._callers = CallerLog(self._audit)
        self._rates: dict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._server: Any = None

    def start(self) -> int:
        """
        Listen in threads of this process; return the port.

        Objects are written to disk as they come, so that memory does not grow with their size.
        """
        for left in self._intake.partial.iterdir():
            left.unlink()
        tempfile.tempdir = str(self._intake.partial)  # where pynetdicom puts objects while they come
        _config.STORE_RECV_CHUNKED_DATASET = True
        _config.LOG_HANDLER_LEVEL = "none"
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # its messages hold UIDs and pieces of headers
        node = self._node = AE(self._settings.ae_title)
        node.require_called_aet = True
        node.maximum_associations = self._settings.max_associations
        node.network_timeout = node.dimse_timeout = _SILENCE
        node.acse_timeout = _GREETING
        node.add_supported_context(Verification)
        for sop_class in IMAGE_CLASSES:
            node.add_supported_context(sop_class, list(DECODERS))
        tls = self._settings.tls
        self._server = node.make_server(
            (self._settings.host, self._settings.port),
            server_class=_Server,
            ssl_context=server_context(tls) if tls else None,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._opened),
                (evt.EVT_REQUESTED, self._requested),
                (evt.EVT_REJECTED, self._rejected),
                (evt.EVT_ACCEPTED, lambda event: self._callers.accepted(event.assoc)),
                (evt.EVT_ABORTED, lambda event: self._callers.outcome(event.assoc, "aborted")),
                (evt.EVT_C_ECHO, self._echo),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_CONN_CLOSE, self._closed),
            ],
        )
        self._server.refusal = self._refusal
        node._servers.append(self._server)  # as AE.start_server does, which knows no server class
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        port = self._server.server_address[1]
        logger.info("%s listens on port %d%s", self._settings.ae_title, port, " with TLS" if tls else "")
        return port

    def stop(self) -> None:
        """Close the port; associations end as they would have."""
        self._server.shutdown()
        self._audit.close()

    def _refusal(self, address: str) -> str | None:
        """Return why a connection is not even listened to: such a caller must take no place from others."""
        peers, open_ones = self._settings.peers, [a.requestor.address for a in self._node.active_associations]
        reason = None
        if peers and all(peer.address for peer in peers) and address not in {peer.address for peer in peers}:
            reason = "the address is no named peer's"
        elif open_ones.count(address) >= self._settings.max_associations_per_address:
            reason = "too many from one address"
        if reason is not None:
            logger.warning("a connection was turned away: %s", reason)
            self._callers.turned_away(address, reason)
        return reason

    def _opened(self, event: Event) -> None:
        self._callers.opened(event.assoc)
        connection: Any = event.assoc.dul.socket
        reading = _LimitedReading(event.assoc, connection.recv, self._settings.max_object_bytes)
        reading.failed = lambda why: self._failed(event.assoc, why)
        connection.recv = reading

    def _failed(self, association: Any, why: str) -> None:
        """Write of a connection that ended before any association, which pynetdicom does not tell of."""
        if association.requestor.primitive is None:
            self._callers.outcome(association, why)
            self._callers.closed(association)

    def _rejected(self, event: Event) -> None:
        asked: Any = event.assoc.requestor.primitive
        called = asked.called_ae_title.strip()
        reason = "too many callers" if called == self._settings.ae_title else "our AE title was not used"
        logger.warning("an association was rejected: %s", reason)
        self._callers.outcome(event.assoc, "rejected", reason)
        self._callers.closed(event.assoc)

    def _closed(self, event: Event) -> None:
        """Remove what is left of an object whose sender went away in the middle, and free the caller's place."""
        self._callers.closed(event.assoc)
        if event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(None)  # or it would wait for the request of a caller that is gone
        message: Any = event.assoc.dimse.message
        path = getattr(message, "_data_set_path", None)
        if path is not None:
            message._data_set_file.close()
            Path(path).unlink(missing_ok=True)

    def _requested(self, event: Event) -> None:
        """Refuse a caller that is not named, by title and address."""
        if not self._settings.peers:
            return
        caller: Any = event.assoc.requestor
        title, address = caller.primitive.calling_ae_title.strip(), caller.address
        if any(p.ae_title.strip() == title and p.address in ("", address) for p in self._settings.peers):
            return
        logger.warning("a caller that is no named peer was refused")
        self._callers.outcome(event.assoc, "rejected", "no named peer")
        self._callers.closed(event.assoc)
        event.assoc.acse.send_reject(0x01, 0x01, 0x03)  # PS3.8 9.3.4: calling AE title not recognized
        time.sleep(0.2)  # for the answer to leave before the connection ends
        event.assoc.kill()

    def _echo(self, event: Event) -> int:
        """Answer a sender's question whether to send; a queue that takes no image is no success."""
        problem = intake_problem(self._settings)
        if problem is not None:
            logger.error("an echo was answered with a failure: %s", problem)
        return SUCCESS if problem is None else PROCESSING_FAILURE

    def _store(self, event: Event) -> int:
        peer = event.assoc.requestor.ae_title.strip()
        connection: Any = event.assoc.dul.socket
        connection.recv.received = 0  # the next object begins
        if not self._within_rate(event.assoc.requestor.address):
            logger.warning("more than %d images a minute from %s", self._settings.instances_per_minute, peer)
            self._callers.refused(event.assoc, "too many images a minute")
            return OUT_OF_RESOURCES
        try:
            new = self._intake.take(event.dataset_path, peer)
        except RefusedError as error:
            logger.warning("refused an object from %s: %s", peer, error)
            self._callers.refused(event.assoc, str(error))
            return CANNOT_UNDERSTAND
        except NoRoomError as error:
            logger.error("refused an object from %s: %s", peer, error)
            self._callers.refused(event.assoc, str(error))
            return OUT_OF_RESOURCES
        except Exception as error:  # the next object may be taken
            logger.error("an object from %s was not taken: %s", peer, type(error).__name__)
            self._callers.refused(event.assoc, type(error).__name__)
            return OUT_OF_RESOURCES
        request: Any = event.request
        self._callers.stored(event.assoc, new, str(request.AffectedSOPInstanceUID))
        return SUCCESS

    def _within_rate(self, address: str) -> bool:
        now = time.monotonic()
        with self._lock:
            times = self._rates[address]
            while times and times[0] < now - 60:
                times.popleft()
            if len(times) >= self._settings.instances_per_minute:
                return False
            times.append(now)
            return True


def server_context(tls: Tls) -> ssl.SSLContext:
    """
    Return the TLS context of a listener.

    Args:
        tls: certificates; with ``authorities``, callers must have one too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(tls.authorities)
    return context


class _Server(ThreadedAssociationServer):
    request_queue_size = 64  # callers that may knock at the same moment
    refusal: Callable[[str], str | None]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self.refusal(client_address[0]) is None

    def get_request(self) -> Any:
        client, address = self.socket.accept()  # type: ignore[union-attr]
        client.settimeout(_SILENCE)  # also for a peer that falls silent in the middle of a PDU
        if self.ssl_context is not None:
            # shake hands in the association's thread: a caller that connects and says nothing must stop nobody else
            client = self.ssl_context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, address


class _LimitedReading:
    """
    ``recv`` of an association's connection, which ends at an oversized PDU, message or object.

    A caller that sends faster than it is answered is read no further until it is, so that nothing piles up in memory.

    Args:
        association: pynetdicom's own.
        receive: its connection's own.
        max_object_bytes: of one object.
    """

    def __init__(self, association: Any, receive: Callable[[int], bytearray], max_object_bytes: int) -> None:
        self._association, self._receive, self._max_object_bytes = association, receive, max_object_bytes
        self.received = 0
        self.failed: Callable[[str], None] = lambda why: None

    def __call__(self, nr_bytes: int) -> bytearray:
        self.received += nr_bytes
        # a margin for the command and for what wraps the fragments
        if nr_bytes > _LARGEST_PDU or self.received > self._max_object_bytes * 1.01 + _LARGEST_PDU:
            logger.warning("a connection was ended: more than %d bytes in one object", self._max_object_bytes)
            raise OSError("too large")
        message = self._association.dimse.message
        if message is not None and max(message.encoded_command_set.tell(), message.data_set.tell()) > _LARGEST_MESSAGE:
            logger.warning("a connection was ended: more than %d bytes in one message", _LARGEST_MESSAGE)
            raise OSError("too large")
        until = time.monotonic() + _SILENCE
        while self._association.dimse.msg_queue.qsize() > _MOST_MESSAGES:
            if time.monotonic() > until:
                raise OSError("too many")
            time.sleep(0.01)
        try:
            data = self._receive(nr_bytes)
        except ssl.SSLError as error:
            self.failed(f"TLS failed, {error.reason or type(error).__name__}")
            raise
        if len(data) < nr_bytes:
            self.failed("the caller left before it asked for an association")
        return data
