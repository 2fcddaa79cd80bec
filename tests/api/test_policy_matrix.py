"""Who may do what: every persona in every scope at every operation, against upstream's policies as the oracle.

`policy_default.json` holds upstream's defaults (the checks, the scopes and the operations of each rule, as data), and
`oslo.policy`, the engine that operators know, decides what they mean.  That a route asks the rule that it names is the
edge's business (`guarded`), and `test_nobody_gets_what_the_rules_refuse` sends real requests.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from oslo_config import cfg
from oslo_policy import policy as oslo
from schemathesis.core import NotSet

from pileus.app import public_services
from pileus.core.api import Operation, Service
from pileus.core.context import Auth
from pileus.core.http import Edge
from pileus.core.openapi import document
from pileus.core.policy import Policy
from pileus.core.store import Tx
from tests.api.edge import Client, serve
from tests.api.whole import Whole, whole_cloud

DEFAULTS: dict[str, dict[str, dict[str, Any]]] = json.loads(
    Path(__file__).with_name("policy_default.json").read_text(encoding="utf-8")
)

SERVICES: dict[str, Service] = {service.type: service for service in public_services() if service.type in DEFAULTS}

PERSONAS = {
    "nobody": frozenset[str](),
    "reader": frozenset({"reader"}),
    "member": frozenset({"reader", "member"}),
    "manager": frozenset({"reader", "member", "manager"}),
    "admin": frozenset({"reader", "member", "manager", "admin"}),
    "service": frozenset({"service"}),
}

SCOPES = ("project", "domain", "system")
"""Of tokens that hold roles; one without a scope holds none."""


class Caller(NamedTuple):
    """A persona in a scope: what both engines are told of it."""

    persona: str
    scope: str
    project: str = "project"
    domain: str = "ours"

    @property
    def auth(self) -> Auth:
        """As the edge sees it."""
        return Auth(
            user_id="caller",
            user_domain_id=self.domain,
            project_id=self.project if self.scope == "project" else None,
            project_domain_id=self.domain if self.scope == "project" else None,
            domain_id=self.domain if self.scope == "domain" else None,
            system_scope="all" if self.scope == "system" else None,
            roles=PERSONAS[self.persona],
        )

    @property
    def credentials(self) -> dict[str, Any]:
        """As upstream's services tell their engine."""
        auth = self.auth
        found = {name: getattr(auth, name) for name in ("user_id", "project_id", "domain_id", "system_scope")}
        token: dict[str, Any] = {"domain": {"id": auth.domain_id}} if auth.domain_id else {}
        if auth.project_id:
            token["project"] = {"domain": {"id": auth.project_domain_id}}
        return {**found, "roles": sorted(auth.roles), "is_admin": False, "token": token}


CALLERS = [*itertools.starmap(Caller, itertools.product(sorted(PERSONAS), SCOPES)), Caller("nobody", "unscoped")]

TARGETS = 5
"""How many things each rule is asked about for each of the callers."""

_KEY = re.compile(r"%\(([^)]+)\)s")


def keys_of(kind: str, rule: str) -> list[str]:
    """The keys of a target that a rule looks at, through all rules that it is made of."""
    found: set[str] = set()
    waiting, seen = [rule], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in DEFAULTS[kind]:
            continue
        seen.add(name)
        check = DEFAULTS[kind][name]["check"]
        found |= set(_KEY.findall(check))
        waiting += re.findall(r"rule:([\w:-]+)", check)
    return sorted(found)


def values_of(key: str) -> list[str | None]:
    """Values that a key of a target may have: the caller's own, another's, and what a rule itself names.

    Nothing but a role is without a domain: to upstream's engine, what has none is of a caller who has none.
    """
    if key.endswith("role.name"):
        return ["member", "reader", "manager", "admin", "other"]
    if key == "visibility":
        return ["public", "private", "shared", "community"]
    if key.endswith("role.domain_id"):
        return ["ours", "theirs", None]
    if "domain" in key:
        return ["ours", "theirs"]
    if "user" in key or "trust" in key:
        return ["caller", "another"]
    return ["project", "theirs"]


class Oracle:
    """Upstream's engine with upstream's defaults for one service."""

    def __init__(self, kind: str) -> None:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[])
        self.engine = oslo.Enforcer(conf, use_conf=False)
        self.rules = DEFAULTS[kind]
        checks = {name: rule["check"] for name, rule in self.rules.items()}
        self.engine.set_rules(oslo.Rules.from_dict(checks), use_conf=False)

    def lets(self, rule: str, caller: Caller, target: dict[str, Any]) -> bool:
        """Whether upstream lets the caller act: the token's scope is one of the rule's, and the check passes."""
        scopes = self.rules[rule]["scopes"]
        scope = "project" if caller.scope == "unscoped" else caller.scope  # upstream takes what is no other as this one
        if scopes and scope not in scopes:
            return False
        return bool(self.engine.enforce(rule, target, caller.credentials, do_raise=False))


@pytest.fixture(scope="module", params=sorted(SERVICES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def declared(kind: str) -> Policy:
    """The rules of a service as its declarations have them."""
    service = SERVICES[kind]
    policy = Policy(service.rules)
    for resource in (*service.resources, *service.outer):
        policy.add(resource.rules)
    return policy


DIFFERENT: dict[str, str] = {}
"""Rules that decide otherwise than upstream's on purpose, each with its reason."""


def differences(policy: Policy, oracle: Oracle, kind: str, rule: str) -> Iterator[str]:
    """Ask both engines about one rule, and targets of which some keys are not known."""
    random, keys = Random(rule), keys_of(kind, rule)  # the same questions each time
    for caller in CALLERS:
        for _ in range(TARGETS):
            target = {key: random.choice(values_of(key)) for key in keys if random.randrange(10)}
            ours = policy.passes(rule, target, caller.auth.credentials)
            if ours != oracle.lets(rule, caller, target):
                yield f"{caller} on {target}: {'allowed' if ours else 'refused'} here"


def test_each_rule_decides_as_upstream_s_does(kind: str) -> None:
    policy, oracle = declared(kind), Oracle(kind)
    shared = sorted(set(policy.rules) & {name for name, rule in DEFAULTS[kind].items() if rule["operations"]})
    assert len(shared) > 20
    wrong = {rule: next(differences(policy, oracle, kind, rule), None) for rule in shared if rule not in DIFFERENT}
    assert {rule: text for rule, text in wrong.items() if text is not None} == {}


def operations(kind: str) -> Iterator[tuple[str, Operation]]:
    """The operations of a service, with their paths below its mount."""
    service = SERVICES[kind]
    for resource in service.resources:
        yield from ((service.roots[0] + operation.path, operation) for operation in resource.operations)


ANYBODY = re.compile(
    r"GET /v2/info/(stores|import|usage)$|GET /v2/schemas/"
    r"|GET /v2\.1/flavors(/detail|/\{flavor_id\})?$"  # private ones are seen by those who have access
    r"|\w+ /v2\.1/images\b"  # Image's own rules decide
    r"|(POST|DELETE) /v2\.1/os-baremetal-nodes\b"  # refused, whoever asks
    r"|POST /v2\.1/servers/\{server_id\}/action resetNetwork$"  # as well
)
"""Operations that upstream lets every caller with a token do, without a rule of the service's own."""


def test_every_operation_names_its_rule(kind: str) -> None:
    policy = declared(kind)
    mute = {
        f"{one.method} {path} {one.action or ''}".rstrip()
        for path, one in operations(kind)
        if one.policy is None and not one.public and one.resource.singular != "removed"
    }
    assert {text for text in mute if not ANYBODY.match(text)} == set()
    unknown = [one.policy for _, one in operations(kind) if one.policy is not None and one.policy not in policy.rules]
    assert unknown == []


def test_network_s_operations_name_their_rules() -> None:
    """Upstream's engine has checks of its own for Network, so that its rules are compared in Network's tests."""
    [service] = [one for one in public_services() if one.type == "network"]
    policy = Policy(service.rules)
    for resource in (*service.resources, *service.outer):
        policy.add(resource.rules)
    named = {f"{one.method} {one.path}": one.policy for resource in service.resources for one in resource.operations}
    mute = {text for text, rule in named.items() if rule not in policy.rules}
    assert mute == {"GET /extensions", "GET /extensions/{alias}"}


FURTHER = {"POST /v2/images/{image_id}/import": "copy_image is asked besides, where that method is asked for"}
"""Operations that ask another rule than upstream's documentation names, each with its reason."""


def test_operations_name_the_rules_that_upstream_s_do(kind: str) -> None:
    def bare(path: str) -> str:
        return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/")

    named: dict[str, set[str]] = {}
    for name, rule in DEFAULTS[kind].items():
        for entry in rule["operations"]:
            method, _, path = entry.partition(" ")
            named.setdefault(f"{method} {bare(path)}", set()).add(name)
    wrong = [
        f"{one.method} {path} asks {one.policy}, upstream {sorted(rules)}"
        for path, one in operations(kind)
        if (rules := named.get(f"{one.method} {bare(path)}")) and one.policy is not None and one.policy not in rules
    ]
    assert [text for text in wrong if text.partition(" asks ")[0] not in FURTHER] == []


# -- through the edge ----------------------------------------------------------------------------------------------


class Things:
    """One of everything that a path may name, in the project and domain `ours`; callers are from there or elsewhere."""

    def __init__(self, admin: Client) -> None:
        self.admin = admin
        self.domain = self.make("/identity/v3/domains", "domain", name="ours")
        self.project = self.make("/identity/v3/projects", "project", name="ours", domain_id=self.domain)
        user = self.make("/identity/v3/users", "user", name="ours", domain_id=self.domain)
        role = self.make("/identity/v3/roles", "role", name="a role")
        service = self.make("/identity/v3/services", "service", type="a type", name="a service")
        region = self.make("/identity/v3/regions", "region", id="a-region")
        endpoint = {"service_id": service, "interface": "public", "url": "http://somewhere", "region_id": region}
        policy = self.make("/identity/v3/policies", "policy", blob="{}", type="application/json")
        image = admin.request("POST", "/image/v2/images", {"name": "ours", "owner": self.project})
        assert image.status == 201, image
        provider = admin.request("POST", "/placement/resource_providers", {"name": "ours"})
        assert provider.status == 201, provider
        flavor = {"name": "ours", "vcpus": 1, "ram": 1, "disk": 1}
        self.ids = {
            "aggregate_id": str(self.make("/compute/v2.1/os-aggregates", "aggregate", name="ours")),
            "flavor_id": self.make("/compute/v2.1/flavors", "flavor", **flavor),
            "hypervisor_id": "1",
            "host_name": "nowhere",
            "domain_id": self.domain,
            "project_id": self.project,
            "user_id": user,
            "group_id": self.make("/identity/v3/groups", "group", name="ours", domain_id=self.domain),
            "role_id": role,
            "prior_role_id": role,
            "implied_role_id": self.make("/identity/v3/roles", "role", name="another role"),
            "service_id": service,
            "region_id": region,
            "endpoint_id": self.make("/identity/v3/endpoints", "endpoint", **endpoint),
            "policy_id": policy,
            "image_id": image.json["id"],
            "member_id": self.project,
            "uuid": provider.headers["location"].rpartition("/")[2],
            "name": "CUSTOM_THING",
            "tag": "a-tag",
        }

    def make(self, path: str, noun: str, **fields: Any) -> str:
        """POST something as the administrator; its id."""
        found = self.admin.request("POST", path, {noun: fields})
        assert found.status in (200, 201), found
        return str(found.json[noun]["id"])

    def value(self, key: str, caller: Caller | None = None) -> Any:
        """What a rule would find under a key of the target, which may be the caller's own."""
        noun = key.removeprefix("target.").partition(".")[0]
        if key in ("visibility", "target.role.name"):
            return {"visibility": "private", "target.role.name": "a role"}[key]
        if key.endswith("role.domain_id"):
            return None
        if "domain" in key:
            return self.domain if caller is None else caller.domain
        if "user_id" in key or noun == "user":
            return self.ids["user_id"] if caller is None else caller.auth.user_id
        return self.project if caller is None else caller.project


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole_cloud(tmp_path_factory.mktemp("matrix")) as whole:
        yield whole


@pytest.fixture(scope="module")
def things(whole: Whole) -> Things:
    return Things(whole.admin)


@pytest.fixture(scope="module")
def everybody(whole: Whole, things: Things) -> Iterator[dict[Caller, Client]]:
    """All personas in all scopes, here and elsewhere; a token's text names the caller."""
    found: dict[str, Caller] = {"nobody": Caller("nobody", "unscoped")}
    for place, (project, domain) in enumerate([(things.project, things.domain), ("elsewhere", "elsewhere")]):
        for persona in sorted(PERSONAS.keys() - {"nobody"}):
            found |= {f"{persona}-{scope}-{place}": Caller(persona, scope, project, domain) for scope in SCOPES}

    def authenticate(tx: Tx, token: str, headers: Mapping[bytes, bytes]) -> Auth:
        return found[token].auth

    control = whole.control
    with serve(Edge(control.public, control.store, control.policy, authenticate, control.provided)) as served:
        yield {caller: served.client(name) for name, caller in found.items()}


OWN = re.compile(r"^/v3/auth/|^/v3/OS-OAUTH1/|^/v3/OS-OAUTH2/")
"""Operations about the caller's own session."""

NOBODYS = re.compile(r"^/v2\.1/flavors/")
"""Paths of things that are no project's: rules are asked about the caller's own."""


def test_nobody_gets_what_the_rules_refuse(
    kind: str, whole: Whole, things: Things, everybody: dict[Caller, Client]
) -> None:
    service, oracle = SERVICES[kind], Oracle(kind)
    schema = schemathesis.openapi.from_dict(document(service))
    found: list[str] = []
    sent = 0
    for path, operation in operations(kind):
        rule = operation.policy
        if rule not in DEFAULTS[kind] or OWN.search(path) or not set(operation.parameters) <= things.ids.keys():
            continue
        target = {key: things.value(key) for key in keys_of(kind, rule)}
        body = example(schema, path, operation)
        real = re.sub(r"\{(\w+)\}", lambda match: things.ids[match[1]], path)
        ledger = service.ledger
        version = (operation.until or ledger.maximum) if ledger else None
        headers = {"openstack-api-version": f"{ledger.service} {version}"} if ledger else {}
        for caller, client in everybody.items():
            mine = not operation.parameters or NOBODYS.search(path)
            own = {key: things.value(key, caller) for key in target} if mine else target
            if not oracle.lets(rule, caller, target) and not oracle.lets(rule, caller, own):
                answer = client.request(operation.method, service.mounts[0] + real, body, headers)
                sent += 1
                if answer.status < 400 or answer.status >= 500:
                    found.append(f"{answer.status}: {caller.persona} in {caller.scope}: {operation.method} {path}")
    assert found == []
    assert sent > 300, "the matrix is small"


def example(schema: Any, path: str, operation: Operation) -> Any:
    """A well-formed body of an operation (an empty one if the newest version has it not); None when it takes none."""
    if "body" not in operation.takes:
        return None
    if operation.until is not None:
        return {}
    strategy = schema[path][operation.method].as_strategy()
    found: list[Any] = []

    @settings(max_examples=1, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=strategy)
    def draw(case: Any) -> None:
        found.append(case.body)

    draw()
    return None if isinstance(found[0], NotSet) else found[0]
