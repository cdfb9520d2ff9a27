"""Our registration at a platform: client id, client secret, and endpoints that differ from its definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.accounts.flow import Endpoints
from server.accounts.model import Secret
from server.platforms.definition import OAuth2Platform


@dataclass(frozen=True, slots=True)
class Registration:
    """`overrides` maps `token_endpoint` and its like to other URLs."""

    client_id: str
    client_secret: Secret
    overrides: Mapping[str, str] = field(default_factory=dict)

    def endpoints(self, definition: OAuth2Platform) -> Endpoints:
        def url(name: str) -> str:
            return self.overrides.get(name) or str(getattr(definition, name))

        return Endpoints(
            authorization=url("authorization_endpoint"),
            token=url("token_endpoint"),
            revocation=url("revocation_endpoint"),
            identity=url("identity_endpoint"),
            issuer=definition.issuer,
        )

    def api_base(self, definition: OAuth2Platform) -> str:
        return self.overrides.get("api_base") or definition.api_base
