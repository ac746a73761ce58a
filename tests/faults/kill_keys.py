"""The client of a kill loop that makes and revokes keys, and knows which of them must work."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import httpx

from tests.faults.kill_model import Violation

_PATIENCE_S = 60
_MOST = 12


@dataclass(slots=True)
class KeyClient:
    """Changes keys, one request after the other. What was not answered is not known."""

    seed: int
    alive: dict[str, str] = field(default_factory=dict)
    """Texts by id, of those whose making was answered and whose revoking was never asked for."""
    revoked: dict[str, str] = field(default_factory=dict)
    """Of those whose revoking was answered."""
    n_acknowledged: int = 0

    def run(self, http: httpx.Client, n: int) -> None:
        """So many changes, or fewer: it ends where the service dies."""
        rng = random.Random(f"{self.seed} keys {self.n_acknowledged}")
        try:
            for _ in range(n):
                if self.alive and (len(self.alive) >= _MOST or rng.random() < 0.45):
                    self._revoke(http, rng.choice(list(self.alive)))
                else:
                    self._create(http)
        except httpx.TransportError:
            return

    def _create(self, http: httpx.Client) -> None:
        answer = http.post("/keys", json={"name": "of a kill loop"})
        if answer.status_code == 200 and answer.json()["key"]:
            self.alive[answer.json()["id"]] = answer.json()["key"]
            self.n_acknowledged += 1

    def _revoke(self, http: httpx.Client, key_id: str) -> None:
        text = self.alive.pop(key_id)
        if http.delete(f"/keys/{key_id}").status_code == 200:
            self.revoked[key_id] = text
            self.n_acknowledged += 1

    def check(self, http: httpx.Client) -> None:
        """Every key that was made works, and none that was revoked, once its ingress has heard."""
        listed = {key["id"] for key in http.get("/keys").json()["keys"]}
        if missing := self.alive.keys() - listed:
            raise Violation(f"keys are missing: {missing}")
        if back := self.revoked.keys() & listed:
            raise Violation(f"revoked keys are back: {back}")
        for status, texts in ((200, self.alive), (401, self.revoked)):
            for key_id, text in texts.items():
                _expect(http, key_id, text, status)


def _expect(http: httpx.Client, key_id: str, text: str, status: int) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while (found := http.get("/keys/me", headers={"X-API-Key": text}).status_code) != status:
        if time.monotonic() > deadline_s:
            raise Violation(f"key {key_id} is answered {found}, not {status}")
        time.sleep(0.05)
