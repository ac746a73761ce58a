"""The ingress in this process, around fakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.testclient import TestClient

from deployments.ingress.application import create_app
from deployments.ingress_settings import IngressSettings
from tests.support.fake_index import FakeIndex
from tests.support.fakes import DIM, FakeEmbedder

BASE_URL = "http://localhost:8900"


@dataclass(frozen=True)
class Ingress:
    """The parts of one ingress, its HTTP client first."""

    http: TestClient
    index: FakeIndex
    embedder: FakeEmbedder

    def add(self, text: str, source: str = "notes.md", **more: Any) -> int:
        """Add a memory without looking for duplicates; its id."""
        body = {"text": text, "source": source, "deduplicate": False, **more}
        answer = self.http.post("/memory/add", json=body)
        assert answer.status_code == 200, answer.text
        new_id: int = answer.json()["id"]
        return new_id


def ingress_settings(**settings: Any) -> IngressSettings:
    """Default settings but those given."""
    return IngressSettings(version="1.2.3", dim=DIM, **settings)


def make_ingress(**settings: Any) -> Ingress:
    """An ingress with default settings but those given."""
    index, embedder = FakeIndex(), FakeEmbedder()
    app = create_app(ingress_settings(**settings), embedder, index)
    client = TestClient(app, base_url=BASE_URL, raise_server_exceptions=False)
    return Ingress(client, index, embedder)
