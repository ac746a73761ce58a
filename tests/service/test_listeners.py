"""What listens, who can reach it, and that strangers are refused: the running service, probed."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from tests.support.service import Service

pytestmark = pytest.mark.service

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
_SERVE_CALL = "/ray.serve.ASGIService/HandleRequest"
_GCS_CALL = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
_RAYLET_CALL = "/ray.rpc.NodeManagerService/GetNodeStats"
_OBJECT_CALL = "/ray.rpc.ObjectManagerService/Pull"
_WORKER_CALL = "/ray.rpc.CoreWorkerService/GetCoreWorkerStats"


@dataclass(frozen=True)
class Listener:
    title: str
    """Command line of the process, without its end."""
    host: str
    port: int


def listeners_of(service: Service) -> list[Listener]:
    found = []
    for process in service.processes():
        title = " ".join(process.cmdline())[:200].strip()
        found += [
            Listener(title, connection.laddr.ip, connection.laddr.port)
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
    return found


def call(
    port: int, method: str, request: bytes = b"", *, token: str | None = None
) -> grpc.StatusCode:
    """The status that a gRPC server gives to a call, with or without a token."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        send = channel.unary_unary(method)
        try:
            send(request, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def outer_address() -> str:
    """An address of this machine that other machines could use."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return str(address.address)
    pytest.skip("this machine has no address beyond loopback")


class Planted:
    """Unpickling it makes a file: the proof that a forged call was carried out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_the_http_port_listens_on_loopback_only(shared_service: Service) -> None:
    hosts = {x.host for x in listeners_of(shared_service) if x.port == shared_service.port}
    assert hosts == {"127.0.0.1"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outer_address(), shared_service.port), timeout=5)


def test_beyond_loopback_only_serve_replicas_listen_and_they_refuse_forged_calls(
    shared_service: Service, tmp_path: Path
) -> None:
    outside = [x for x in listeners_of(shared_service) if x.host not in LOOPBACK]
    assert outside, "Serve's calls between replicas were expected to be here"
    planted = tmp_path / "planted"
    forged = b"\x0a" + _length_prefixed(pickle.dumps(Planted(planted)))
    token = (shared_service.runtime_dir / "ray_token").read_text()
    for listener in outside:
        assert listener.title.startswith("ray::ServeReplica:"), listener
        for credentials in (None, "", "f" * 64):
            status = call(listener.port, _SERVE_CALL, forged, token=credentials)
            assert status is grpc.StatusCode.UNAUTHENTICATED, (listener, credentials)
        assert not planted.exists()
    # The forgery works where the token is known, so it was the token that refused it.
    assert call(outside[0].port, _SERVE_CALL, forged, token=token) is not grpc.StatusCode.OK
    assert planted.exists()


def test_rays_own_ports_refuse_calls_without_the_token(shared_service: Service) -> None:
    token = (shared_service.runtime_dir / "ray_token").read_text()
    probed = set()
    for listener in listeners_of(shared_service):
        kind, methods = _grpc_service(listener)
        if not methods:
            continue
        # Each of raylet's two ports serves one of its services and knows nothing of the other.
        served = [
            method
            for method in methods
            if call(listener.port, method, token=token) is not grpc.StatusCode.UNIMPLEMENTED
        ]
        assert len(served) == 1, listener
        for credentials in (None, "f" * 64):
            status = call(listener.port, served[0], token=credentials)
            assert status is grpc.StatusCode.UNAUTHENTICATED, (listener, credentials)
        status = call(listener.port, served[0], token=token)
        assert status is not grpc.StatusCode.UNAUTHENTICATED, listener
        probed.add(kind)
    assert probed == {"gcs", "raylet", "replica", "worker"}


def test_no_port_is_left_that_no_test_knows(shared_service: Service) -> None:
    for listener in listeners_of(shared_service):
        assert not speaks_http(listener) or listener.port == shared_service.port, listener


def test_statistics_metrics_dashboard_and_ray_client_are_not_there(
    shared_service: Service,
) -> None:
    ports = {x.port for x in listeners_of(shared_service)}
    assert not ports & {8404, 9101, 8265, 10001, 44217, 44227, 52365}
    haproxy = [x for x in listeners_of(shared_service) if "haproxy" in x.title]
    assert all(x.port == shared_service.port for x in haproxy)


def test_a_driver_without_the_token_cannot_join_the_cluster(shared_service: Service) -> None:
    gcs = next(x for x in listeners_of(shared_service) if _grpc_service(x)[0] == "gcs")
    attempt = subprocess.run(
        [sys.executable, "-c", f"import ray; ray.init(address='127.0.0.1:{gcs.port}')"],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "f" * 64,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert attempt.returncode != 0
    assert "authenticat" in (attempt.stdout + attempt.stderr).lower()


def test_the_token_and_the_sockets_are_this_users_only(shared_service: Service) -> None:
    runtime = shared_service.runtime_dir
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert (runtime / "ray_token").stat().st_mode & 0o777 == 0o600


def _length_prefixed(payload: bytes) -> bytes:
    """A protobuf bytes field's value: its length as a varint, then itself."""
    length, prefix = len(payload), bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + payload


def _grpc_service(listener: Listener) -> tuple[str, list[str]]:
    """Which of Ray's services a listener is, and calls that it serves; empty for HTTP."""
    if "gcs_server" in listener.title:
        return "gcs", [_GCS_CALL]
    if "/raylet " in listener.title:
        return "raylet", [_RAYLET_CALL, _OBJECT_CALL]
    if listener.host not in LOOPBACK:
        return "replica", [_SERVE_CALL]
    # Ray's C++ servers listen on the IPv6 form; the ingress's HTTP on the IPv4 one.
    if listener.host != "127.0.0.1":
        return "worker", [_WORKER_CALL]
    return "", []


def speaks_http(listener: Listener) -> bool:
    """Whether it is neither one of Ray's services nor an ingress behind HAProxy."""
    return not _grpc_service(listener)[0] and not _is_direct_ingress(listener)


def _is_direct_ingress(listener: Listener) -> bool:
    return "ServeReplica:default:Ingress" in listener.title and listener.host == "127.0.0.1"
