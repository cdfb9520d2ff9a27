"""The definitions that the contract holds for: the catalog, and one that uses every switch the other way."""

from dataclasses import replace
from datetime import timedelta

from server.platforms.catalog import PLATFORMS
from server.platforms.definition import INVALID_GRANT, ClientAuth, OAuth2Platform, Pkce, Rotation
from server.platforms.twitter import TWITTER

OTHER_WAY = replace(
    TWITTER,
    id="other",
    display_name="The other way",
    client_auth=ClientAuth.POST,
    pkce=Pkce.OFF,
    rotation=Rotation.NONE,
    dead_grant=(INVALID_GRANT,),
    refused_code=(INVALID_GRANT,),
    revocation_endpoint="",
    identity_query="",
    default_access_token_lifetime=timedelta(days=60),
)
DEFINITIONS: tuple[OAuth2Platform, ...] = (*PLATFORMS, OTHER_WAY)
