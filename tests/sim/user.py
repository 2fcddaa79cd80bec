"""Users of a simulated cloud: what they ask for, drawn from the seed, and what they were promised.

A request is mostly sensible, sometimes nonsense (a verb that is not lawful now, a thing that is gone).  What was
answered with 2xx is a promise; what was not answered (the control plane died) may or may not have been done.
"""

from __future__ import annotations

from typing import Any

from tests.services.compute.cloud import IMAGE, PROJECT
from tests.sim.cloud import FLAVORS, Cloud

COMPUTE, NETWORK = "/compute/v2.1", "/network/v2.0"

POWER = {
    "os-start": None, "os-stop": None, "reboot": ("HARD", "SOFT"), "pause": None, "unpause": None, "suspend": None,
    "resume": None, "lock": None, "unlock": None,
}  # fmt: skip

LIFE = (
    *("rebuild", "resize", "confirmResize", "revertResize", "rescue", "unrescue", "shelve", "shelveOffload"),
    *("unshelve", "createImage", "createBackup", "changePassword", "trigger_crash_dump", "os-resetState"),
    *("restore", "forceDelete"),
)


KINDS = ("servers", "networks", "subnets", "ports", "routers", "floatingips", "security-groups")


class User:
    """Asks for things."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.random = cloud.chance.random
        self.things: dict[str, dict[str, bool]] = {
            kind: {}
            for kind in ("servers", "networks", "subnets", "ports", "routers", "floatingips", "security-groups")
        }
        """By kind and id, whether it was promised to be there; False when nobody can say."""
        self.gone: dict[str, set[str]] = {kind: set() for kind in self.things}
        """What was promised to go."""
        self.said: list[str] = []
        """What was asked and answered, for people."""

    async def act(self) -> None:
        """One request."""
        acts = [
            (6, self.create_server),
            (5, self.power),
            (9, self.live),
            (3, self.delete_server),
            (3, self.create_network),
            (2, self.create_port),
            (2, self.interface),
            (2, self.router),
            (2, self.floating_ip),
            (1, self.security_group),
            (2, self.delete_thing),
        ]
        (chosen,) = self.random.choices([act for _, act in acts], [weight for weight, _ in acts])
        await chosen()

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request; a fault of ours is an error."""
        status, answer = await self.cloud.request(method, path, body)
        self.said.append(f"{self.cloud.clock.monotonic():.0f} {method} {path} {body} -> {status}")
        assert status < 500 or status == 503, (method, path, body, status, answer)
        return status, answer

    def any(self, kind: str) -> str | None:
        """One of a kind that may be there."""
        known = list(self.things[kind])
        return self.random.choice(known) if known else None

    def promise(self, kind: str, status: int, answer: Any) -> None:
        """Remember what was made."""
        if status in (200, 201, 202):
            (one,) = answer.values()
            self.things[kind][one["id"]] = True

    async def create_server(self) -> None:
        """One server, or two."""
        wanted: dict[str, Any] = {
            "name": f"s{len(self.said)}",
            "flavorRef": self.random.choice(list(FLAVORS)),
            "imageRef": IMAGE,
        }
        network, port = self.any("networks"), self.any("ports")
        if network is None or self.cloud.chance.often(0.2):
            wanted["networks"] = "none"
        elif port is not None and self.cloud.chance.often(0.3):
            wanted["networks"] = [{"port": port}]
        else:
            wanted["networks"] = [{"uuid": network}] * self.random.choice((1, 1, 2))
        if self.cloud.chance.often(0.2):
            wanted["min_count"], wanted["max_count"] = 1, 2
        status, answer = await self.ask("POST", f"{COMPUTE}/servers", {"server": wanted})
        self.promise("servers", status, answer)

    async def power(self) -> None:
        """A change of power."""
        if (server := self.any("servers")) is not None:
            verb = self.random.choice(list(POWER))
            kinds = POWER[verb]
            body = {"type": self.random.choice(kinds)} if kinds else None
            await self.ask("POST", f"{COMPUTE}/servers/{server}/action", {verb: body})

    async def live(self) -> None:
        """A change of what a server is."""
        if (server := self.any("servers")) is None:
            return
        verb = self.random.choice(LIFE)
        bodies: dict[str, Any] = {
            "rebuild": {"imageRef": IMAGE},
            "resize": {"flavorRef": self.random.choice(list(FLAVORS))},
            "createImage": {"name": f"image{len(self.said)}"},
            "createBackup": {"name": f"backup{len(self.said)}", "backup_type": "daily", "rotation": 1},
            "changePassword": {"adminPass": "secret-enough"},
            "os-resetState": {"state": self.random.choice(("active", "error"))},
            "rescue": {"rescue_image_ref": IMAGE},
        }
        status, _ = await self.ask("POST", f"{COMPUTE}/servers/{server}/action", {verb: bodies.get(verb)})
        if verb == "forceDelete" and (status == 0 or status < 300):
            self.leave("servers", server, sure=status != 0)

    def leave(self, kind: str, one: str, *, sure: bool) -> None:
        """Remember that something is to go."""
        if sure:
            self.things[kind].pop(one, None)
            self.gone[kind].add(one)
        else:
            self.things[kind][one] = False

    async def delete(self, kind: str, path: str, one: str) -> None:
        """Let something go."""
        status, _ = await self.ask("DELETE", f"{path}/{one}")
        if status in (202, 204):
            self.leave(kind, one, sure=True)
        elif status == 0:
            self.leave(kind, one, sure=False)
        elif status == 404:
            assert not self.things[kind].get(one), f"{kind} {one} was promised, and nobody let it go"
            self.things[kind].pop(one, None)

    async def delete_server(self) -> None:
        """Let a server go."""
        if (server := self.any("servers")) is not None:
            await self.delete("servers", f"{COMPUTE}/servers", server)
            for port in self.things["ports"]:
                self.things["ports"][port] = self.things["ports"][port] and await self.there("ports", port)

    async def there(self, kind: str, one: str) -> bool:
        """Whether Network shows it."""
        status, _ = await self.ask("GET", f"{NETWORK}/{kind}/{one}")
        return status == 200

    async def create_network(self) -> None:
        """A network with a subnet."""
        status, answer = await self.ask("POST", f"{NETWORK}/networks", {"network": {"name": "n"}})
        self.promise("networks", status, answer)
        if status == 201:
            subnet = {"network_id": answer["network"]["id"], "ip_version": 4}
            subnet["cidr"] = f"10.{self.random.randrange(4)}.0.0/{self.random.choice((24, 29))}"
            status, answer = await self.ask("POST", f"{NETWORK}/subnets", {"subnet": subnet})
            self.promise("subnets", status, answer)

    async def create_port(self) -> None:
        """A port."""
        if (network := self.any("networks")) is not None:
            status, answer = await self.ask("POST", f"{NETWORK}/ports", {"port": {"network_id": network}})
            self.promise("ports", status, answer)

    async def interface(self) -> None:
        """A card more, or less."""
        server, port = self.any("servers"), self.any("ports")
        if server is None:
            return
        path = f"{COMPUTE}/servers/{server}/os-interface"
        if port is not None and self.cloud.chance.often(0.5):
            await self.ask("POST", path, {"interfaceAttachment": {"port_id": port}})
            return
        status, answer = await self.ask("GET", path)
        cards = answer["interfaceAttachments"] if status == 200 else []
        if cards:
            card = self.random.choice(cards)["port_id"]
            await self.ask("DELETE", f"{path}/{card}")
            if card in self.things["ports"]:
                self.things["ports"][card] = False

    async def router(self) -> None:
        """A router, or a leg of one."""
        router, subnet = self.any("routers"), self.any("subnets")
        if router is None or self.cloud.chance.often(0.3):
            status, answer = await self.ask("POST", f"{NETWORK}/routers", {"router": {"name": "r"}})
            self.promise("routers", status, answer)
        elif subnet is not None:
            verb = self.random.choice(("add_router_interface", "remove_router_interface"))
            await self.ask("PUT", f"{NETWORK}/routers/{router}/{verb}", {"subnet_id": subnet})

    async def floating_ip(self) -> None:
        """A floating IP, or where it leads."""
        one, port = self.any("floatingips"), self.any("ports")
        if one is None or self.cloud.chance.often(0.4):
            status, answer = await self.ask("GET", f"{NETWORK}/networks?name=public")
            if status == 200:
                body = {"floatingip": {"floating_network_id": answer["networks"][0]["id"]}}
                status, answer = await self.ask("POST", f"{NETWORK}/floatingips", body)
                self.promise("floatingips", status, answer)
        else:
            target = port if self.cloud.chance.often(0.7) else None
            await self.ask("PUT", f"{NETWORK}/floatingips/{one}", {"floatingip": {"port_id": target}})

    async def security_group(self) -> None:
        """A group, or a rule of one."""
        group = self.any("security-groups")
        if group is None:
            body = {"security_group": {"name": "g"}}
            status, answer = await self.ask("POST", f"{NETWORK}/security-groups", body)
            self.promise("security-groups", status, answer)
        else:
            rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
            rule["port_range_min"] = rule["port_range_max"] = str(self.random.randrange(1, 100))
            await self.ask("POST", f"{NETWORK}/security-group-rules", {"security_group_rule": rule})

    async def delete_thing(self) -> None:
        """Let something of Network's go."""
        kind = self.random.choice([kind for kind in self.things if kind != "servers"])
        if (one := self.any(kind)) is not None:
            await self.delete(kind, f"{NETWORK}/{kind}", one)
            if kind == "networks":
                for child in ("subnets", "ports"):
                    for other in self.things[child]:
                        self.things[child][other] = False

    async def everything_goes(self) -> None:
        """Let all of it go, in an order that works, and again until nothing is left."""
        for _ in range(4):
            for server in await self.listed("servers"):
                await self.ask("POST", f"{COMPUTE}/servers/{server}/action", {"unlock": None})
                await self.delete("servers", f"{COMPUTE}/servers", server)
            await self.cloud.settle()
            for one in await self.listed("floatingips"):
                await self.delete("floatingips", f"{NETWORK}/floatingips", one)
            for router in await self.listed("routers"):
                for subnet in await self.listed("subnets"):
                    path = f"{NETWORK}/routers/{router}/remove_router_interface"
                    await self.ask("PUT", path, {"subnet_id": subnet})
            left = 0
            for kind in ("routers", "ports", "networks"):
                ones = await self.listed(kind)
                left += len(ones)
                for one in ones:
                    await self.delete(kind, f"{NETWORK}/{kind}", one)
            await self.cloud.settle()
            if not left:
                return

    async def listed(self, kind: str) -> list[str]:
        """All of a kind that the project has."""
        path = f"{COMPUTE}/servers" if kind == "servers" else f"{NETWORK}/{kind}?project_id={PROJECT}"
        _, answer = await self.ask("GET", path)
        (ones,) = (value for name, value in answer.items() if not name.endswith("_links"))
        return [one["id"] for one in ones if one.get("name") != "public"]
