"""The shape of each field: what is let through to the use case, and what is refused by its name."""

from synposter.accounts.v1 import account_service_pb2 as pb

from server.accounts.model import Secret, Status

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
BEGIN = {"profile_id": "acme:ada", "platform": "twitter"}
RESPONSE = {"code": "the-code", "state": "the-state"}


def begin(**changes):
    return "BeginConnect", pb.BeginConnectRequest(**{**BEGIN, **changes})


def complete(**changes):
    return "CompleteConnect", pb.CompleteConnectRequest(
        **{"profile_id": "acme:ada", "completion_code": "code", **changes}
    )


def respond(**changes):
    response = pb.AuthorizationResponse(**{**RESPONSE, **changes})
    return "CompleteConnect", pb.CompleteConnectRequest(profile_id="acme:ada", authorization_response=response)


def list_accounts(**changes):
    return "ListAccounts", pb.ListAccountsRequest(**{"profile_id": "acme:ada", **changes})


BAD_PROFILES = ("a b", "a\n", "x" * 129, "ä", "a*", "a\0", "a%")
BAD_IDS = ("", "x", ID[:-1], ID + "0", ID.replace("-", ""), "{" + ID + "}", "urn:uuid:" + ID, ID + "\n", ID[:-1] + "g")
REFUSED = [
    *((begin(profile_id=bad), "profile_id") for bad in ("", *BAD_PROFILES)),
    *((complete(profile_id=bad), "profile_id") for bad in ("", *BAD_PROFILES)),
    *((list_accounts(profile_id=bad), "profile_id") for bad in BAD_PROFILES),
    (begin(platform=""), "platform"),
    *((begin(scopes=[bad]), "scopes") for bad in ("", "a b", "x" * 129, "ä", "a\t", "a\n", "\x7f")),
    (begin(scopes=[f"scope{number}" for number in range(51)]), "scopes"),
    (begin(return_url="https://a.example/", redirect_uri="https://a.example/"), "return_url"),
    *((begin(account_id=bad), "account_id") for bad in BAD_IDS if bad),
    (("CompleteConnect", pb.CompleteConnectRequest(profile_id="acme:ada")), "answer"),
    (complete(completion_code=""), "completion_code"),
    (respond(state=""), "authorization_response.state"),
    (respond(code=""), "authorization_response.code"),
    (respond(code="x" * 4097), "authorization_response.code"),
    (respond(state="x" * 501), "authorization_response.state"),
    (respond(iss="x" * 2049), "authorization_response.iss"),
    (respond(error="x" * 257), "authorization_response.error"),
    (respond(error_description="x" * 4097), "authorization_response.error_description"),
    *((("GetAccount", pb.GetAccountRequest(id=bad)), "id") for bad in BAD_IDS),
    *((("Revoke", pb.RevokeRequest(id=bad)), "id") for bad in BAD_IDS),
    (list_accounts(statuses=[0]), "statuses"),
    (list_accounts(statuses=[1, 4]), "statuses"),
    (list_accounts(statuses=[-1]), "statuses"),
    (list_accounts(page_size=-1), "page_size"),
    (list_accounts(page_token="x"), "page_token"),
]


async def test_each_malformed_field_is_refused_by_name_and_reaches_no_use_case(edge) -> None:
    for (method, request), field in REFUSED:
        refusal = await edge.refusal(method, request)
        assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD"), request
        assert refusal.facts == {"field": field}, request
        ((named, problem),) = refusal.violations
        assert named == field, request
        assert problem, request
    assert edge.use_cases.calls == []


async def test_a_refused_authorization_response_is_not_repeated_in_the_error(edge) -> None:
    refusal = await edge.refusal(*respond(code="canary-code" * 400, state="canary-state"))
    assert "canary" not in refusal.text + refusal.raw


GIVEN = [
    (begin(), {"return_url": None, "redirect_uri": None, "account_id": None, "scopes": (), **BEGIN}),
    (begin(profile_id="a-Z0.9_:@/-"), {"profile_id": "a-Z0.9_:@/-"}),
    (begin(profile_id="x" * 128), {"profile_id": "x" * 128}),
    (begin(scopes=["b", "a", "b"]), {"scopes": ("b", "a")}),
    (begin(scopes=["x" * 128] + ["!~"] * 49), {"scopes": ("x" * 128, "!~")}),
    (begin(return_url="https://a.example/"), {"return_url": "https://a.example/", "redirect_uri": None}),
    (begin(redirect_uri="https://a.example/"), {"return_url": None, "redirect_uri": "https://a.example/"}),
    (begin(account_id=ID.upper()), {"account_id": ID}),
    (complete(), {"profile_id": "acme:ada", "completion_code": Secret("code"), "response": None}),
    (("GetAccount", pb.GetAccountRequest(id=ID.upper())), {"account_id": ID}),
    (("Revoke", pb.RevokeRequest(id=ID.upper())), {"account_id": ID}),
    (
        list_accounts(),
        {"profile_id": "acme:ada", "platform": None, "statuses": frozenset(), "size": 50, "after": ""},
    ),
    (list_accounts(profile_id=""), {"profile_id": None}),
    (list_accounts(platform="twitter"), {"platform": "twitter"}),
    (list_accounts(statuses=[1, 3, 1]), {"statuses": frozenset({Status.ACTIVE, Status.REVOKED})}),
    (list_accounts(statuses=[2]), {"statuses": frozenset({Status.EXPIRED})}),
    *((list_accounts(page_size=size), {"size": size}) for size in (1, 500)),
    *((list_accounts(page_size=size), {"size": 500}) for size in (501, 2**31 - 1)),
]


async def test_each_well_formed_field_reaches_the_use_case(edge) -> None:
    for (method, request), expected in GIVEN:
        edge.use_cases.calls.clear()
        await edge.call(method, request)
        ((_, _, given),) = edge.use_cases.calls
        assert {name: given[name] for name in expected} == expected, request


async def test_an_authorization_response_reaches_the_use_case_without_its_description(edge) -> None:
    await edge.call(*respond(code="c" * 4096, state="s" * 500, iss="i" * 2048))
    await edge.call(*respond(code="", error="access_denied", error_description="d" * 4096))
    (_, _, granted), (_, _, denied) = edge.use_cases.calls
    assert granted["completion_code"] is None
    assert granted["response"].code == Secret("c" * 4096)
    assert granted["response"].state == Secret("s" * 500)
    assert granted["response"].iss == "i" * 2048
    assert (denied["response"].code, denied["response"].error) == (None, "access_denied")
    assert "ddd" not in repr(denied["response"])
