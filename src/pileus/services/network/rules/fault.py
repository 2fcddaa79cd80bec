"""What refusals are called. The class names are the `type` of Network's envelope, as upstream's clients know them.

Source: Network API v2.0, "Normal response codes" and "Error response codes" of each operation.
"""

from __future__ import annotations

from collections.abc import Sequence

from pileus.core.errors import BadRequest, Conflict, Forbidden, NotFound, PreconditionFailed


class NetworkNotFound(NotFound):
    """404: no such network for this caller."""

    def __init__(self, network_id: str) -> None:
        super().__init__(f"Network {network_id} could not be found.")


class SubnetNotFound(NotFound):
    """404: no such subnet for this caller."""

    def __init__(self, subnet_id: str) -> None:
        super().__init__(f"Subnet {subnet_id} could not be found.")


class PortNotFound(NotFound):
    """404: no such port for this caller."""

    def __init__(self, port_id: str) -> None:
        super().__init__(f"Port {port_id} could not be found.")


class RouterNotFound(NotFound):
    """404: no such router for this caller."""

    def __init__(self, router_id: str) -> None:
        super().__init__(f"Router {router_id} could not be found.")


class RouterInterfaceNotFound(NotFound):
    """404: the router has no such leg."""

    def __init__(self, router_id: str, port_id: str) -> None:
        super().__init__(f"Router {router_id} has no interface with port {port_id}.")


class RouterInterfaceNotFoundForSubnet(NotFound):
    """404: the router has no leg in the subnet."""

    def __init__(self, router_id: str, subnet_id: str) -> None:
        super().__init__(f"Router {router_id} has no interface on subnet {subnet_id}.")


class FloatingIPNotFound(NotFound):
    """404: no such floating IP for this caller."""

    def __init__(self, floatingip_id: str) -> None:
        super().__init__(f"Floating IP {floatingip_id} could not be found.")


class SecurityGroupNotFound(NotFound):
    """404: no such security group for this caller."""

    def __init__(self, group_id: str) -> None:
        super().__init__(f"Security group {group_id} does not exist.")


class SecurityGroupRuleNotFound(NotFound):
    """404: no such rule for this caller."""

    def __init__(self, rule_id: str) -> None:
        super().__init__(f"Security group rule {rule_id} does not exist.")


class ExtensionsNotFound(NotFound):
    """404: the service has no such extension."""

    def __init__(self, alias: str) -> None:
        super().__init__(f"There is no extension {alias}.")


class TagNotFound(NotFound):
    """404: the resource has no such tag."""

    def __init__(self, tag: str) -> None:
        super().__init__(f"Tag {tag} could not be found.")


class ExternalGatewayForFloatingIPNotFound(NotFound):
    """404: no router connects the port's subnet with the floating IP's network."""

    def __init__(self, network_id: str, subnet_id: str, port_id: str) -> None:
        super().__init__(
            f"The external network {network_id} is not reachable from subnet {subnet_id}: "
            f"port {port_id} cannot have a floating IP of it."
        )


class PolicyNotAuthorized(Forbidden):
    """403: a policy rule forbids it."""

    def __init__(self, rule: str) -> None:
        super().__init__(f"{rule} is disallowed by policy.")


class InvalidInput(BadRequest):
    """400: the input does not make sense."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Invalid input for operation: {reason}.")


class InvalidIpForNetwork(BadRequest):
    """400: the address lies in none of the network's subnets."""

    def __init__(self, address: str) -> None:
        super().__init__(f"IP address {address} is not in any subnet of the network.")


class InvalidIpForSubnet(BadRequest):
    """400: the address does not lie in the subnet, or is not one of a host."""

    def __init__(self, address: str) -> None:
        super().__init__(f"IP address {address} is not a valid address of the subnet.")


class InvalidAllocationPool(BadRequest):
    """400: the pool's first address comes after its last one."""

    def __init__(self, pool: str) -> None:
        super().__init__(f"The allocation pool {pool} is not valid.")


class OutOfBoundsAllocationPool(BadRequest):
    """400: the pool reaches beyond its subnet."""

    def __init__(self, pool: str, cidr: str) -> None:
        super().__init__(f"The allocation pool {pool} reaches beyond the subnet {cidr}.")


class OverlappingAllocationPools(Conflict):
    """409: two pools share addresses."""

    def __init__(self, one: str, other: str, cidr: str) -> None:
        super().__init__(f"The allocation pools {one} and {other} of subnet {cidr} overlap.")


class GatewayConflictWithAllocationPools(Conflict):
    """409: the gateway's address lies in a pool."""

    def __init__(self, address: str, pool: str) -> None:
        super().__init__(f"Gateway ip {address} lies in the allocation pool {pool}.")


class GatewayIpInUse(Conflict):
    """409: a port holds the gateway's address."""

    def __init__(self, address: str, port_id: str) -> None:
        super().__init__(f"The current gateway ip {address} is in use by port {port_id}.")


class NetworkInUse(Conflict):
    """409: ports are left on the network."""

    def __init__(self, network_id: str, port_ids: Sequence[str]) -> None:
        super().__init__(
            f"Unable to complete operation on network {network_id}. There are one or more ports still in use on the "
            f"network, among them {', '.join(port_ids)}."
        )


class SubnetInUse(Conflict):
    """409: ports have addresses of the subnet."""

    def __init__(self, subnet_id: str, reason: str = "one or more ports have an IP allocation from it") -> None:
        super().__init__(f"Unable to complete operation on subnet {subnet_id}: {reason}.")


class PortInUse(Conflict):
    """409: a device holds the port."""

    def __init__(self, port_id: str, device_id: str) -> None:
        super().__init__(f"Port {port_id} is in use by device {device_id}.")


class ServicePortInUse(Conflict):
    """409: the port belongs to something of the cloud, and goes only with it."""

    def __init__(self, port_id: str, reason: str) -> None:
        super().__init__(f"Port {port_id} cannot be deleted directly: {reason}.")


class UnsupportedPortDeviceOwner(Conflict):
    """409: ports of the cloud itself are not changed like this."""

    def __init__(self, port_id: str, device_owner: str) -> None:
        super().__init__(f"This cannot be changed of port {port_id}, which belongs to {device_owner}.")


class MacAddressInUse(Conflict):
    """409: another port of the network has the MAC address."""

    def __init__(self, network_id: str, mac: str) -> None:
        super().__init__(f"The MAC address {mac} is in use on network {network_id}.")


class IpAddressInUse(Conflict):
    """409: another port of the network has the address."""

    def __init__(self, network_id: str, address: str) -> None:
        super().__init__(f"The IP address {address} is in use on network {network_id}.")


class IpAddressGenerationFailure(Conflict):
    """409: all addresses are taken."""

    def __init__(self, network_id: str) -> None:
        super().__init__(f"No more IP addresses available on network {network_id}.")


class InvalidSharedSetting(Conflict):
    """409: other projects use the network."""

    def __init__(self, network_id: str) -> None:
        super().__init__(f"Network {network_id} cannot be unshared: other projects use it.")


class ExternalNetworkInUse(Conflict):
    """409: routers or floating IPs need the network to stay external."""

    def __init__(self, network_id: str) -> None:
        super().__init__(f"External network {network_id} is used by routers or floating IPs: it must stay external.")


class AddressPairAndPortSecurityRequired(Conflict):
    """409: address pairs mean something only with port security."""

    def __init__(self) -> None:
        super().__init__("Port security must be enabled in order to have allowed address pairs on a port.")


class PortSecurityAndIPRequiredForSecurityGroups(BadRequest):
    """400: security groups need port security and an address."""

    def __init__(self) -> None:
        super().__init__("Port security must be enabled and the port must have an IP address to use security groups.")


class PortSecurityPortHasSecurityGroup(Conflict):
    """409: the port has security groups, and so needs port security."""

    def __init__(self) -> None:
        super().__init__("The port has security groups. Port security cannot be disabled before they are removed.")


class RouterInUse(Conflict):
    """409: the router has legs."""

    def __init__(self, router_id: str) -> None:
        super().__init__(f"Router {router_id} still has ports.")


class RouterInterfaceInUseByFloatingIP(Conflict):
    """409: floating IPs need the leg."""

    def __init__(self, router_id: str, subnet_id: str) -> None:
        super().__init__(
            f"The interface of router {router_id} on subnet {subnet_id} is required by one or more floating IPs."
        )


class RouterInterfaceInUseByRoute(Conflict):
    """409: routes need the leg."""

    def __init__(self, router_id: str, subnet_id: str) -> None:
        super().__init__(
            f"The interface of router {router_id} on subnet {subnet_id} is required by one or more routes."
        )


class RouterExternalGatewayInUseByFloatingIp(Conflict):
    """409: floating IPs need the gateway."""

    def __init__(self, router_id: str, network_id: str) -> None:
        super().__init__(
            f"The gateway of router {router_id} to network {network_id} is required by one or more floating IPs."
        )


class InvalidRoutes(BadRequest):
    """400: a route that the router cannot have."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Invalid format for routes: {reason}.")


class RoutesExhausted(BadRequest):
    """400: more routes than a router may have."""

    def __init__(self, router_id: str, limit: int) -> None:
        super().__init__(f"Router {router_id} would have more than {limit} routes.")


class FloatingIPPortAlreadyAssociated(Conflict):
    """409: the fixed address has a floating IP."""

    def __init__(self, floating: str, port_id: str, fixed: str) -> None:
        super().__init__(
            f"Floating IP {floating} cannot be associated with port {port_id}: {fixed} has a floating IP already."
        )


class SecurityGroupInUse(Conflict):
    """409: ports or rules name the group."""

    def __init__(self, group_id: str) -> None:
        super().__init__(f"Security Group {group_id} in use.")


class SecurityGroupCannotRemoveDefault(Conflict):
    """409: the default group goes only by an administrator's hand."""

    def __init__(self) -> None:
        super().__init__("The default security group cannot be removed.")


class SecurityGroupCannotUpdateDefault(Conflict):
    """409: the default group keeps its name."""

    def __init__(self) -> None:
        super().__init__("The default security group cannot be renamed.")


class SecurityGroupDefaultAlreadyExists(Conflict):
    """409: `default` is the name of the group that every project has."""

    def __init__(self) -> None:
        super().__init__("The project has its default security group already.")


class SecurityGroupRuleExists(Conflict):
    """409: the group has this rule."""

    def __init__(self, rule_id: str) -> None:
        super().__init__(f"Security group rule already exists. Rule id is {rule_id}.")


class DuplicateSecurityGroupRuleInPost(Conflict):
    """409: one request holds the same rule twice."""

    def __init__(self) -> None:
        super().__init__("The request holds the same security group rule twice.")


class OverQuota(Conflict):
    """409: a limit would be passed."""

    def __init__(self, resource: str) -> None:
        super().__init__(f"Quota exceeded for resources: ['{resource}'].")


class RevisionNumberConstraintFailed(PreconditionFailed):
    """412: the resource is not at the revision that the request names."""

    def __init__(self, wanted: str, found: int) -> None:
        super().__init__(f"Constrained to {wanted}, but current revision is {found}.")


class SubnetPoolNotFound(NotFound):
    """404: no such subnet pool for this caller."""

    def __init__(self, pool_id: str) -> None:
        super().__init__(f"Subnet pool {pool_id} could not be found.")


class SubnetPoolDeleteError(BadRequest):
    """400: subnets are of the pool."""

    def __init__(self) -> None:
        super().__init__("Unable to delete subnet pool: subnets have been allocated from it.")


class SubnetPoolQuotaExceeded(OverQuota):
    """409: the project has as much of the pool as it may."""

    def __init__(self) -> None:
        super().__init__("subnetpool prefixes")


class SubnetAllocationError(BadRequest):
    """400: the pool has no room for the subnet."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Failed to allocate subnet: {reason}.")


class IllegalSubnetPoolPrefixBounds(BadRequest):
    """400: prefix lengths that do not go together."""

    def __init__(self, name: str, length: int, bound: str, limit: int) -> None:
        super().__init__(f"Illegal prefix bounds: {name}={length}, {bound}={limit}.")


class IllegalSubnetPoolPrefixUpdate(BadRequest):
    """400: the pool would lose prefixes that it has."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Illegal update to prefixes: {reason}.")


class IllegalSubnetPoolAssociationToAddressScope(BadRequest):
    """400: the pool cannot be in the address scope."""

    def __init__(self, scope_id: str, reason: str) -> None:
        super().__init__(f"The subnet pool cannot be associated with address scope {scope_id}: {reason}.")


class NetworkSubnetPoolAffinityError(BadRequest):
    """400: the network's subnets are of another pool."""

    def __init__(self) -> None:
        super().__init__("Subnets hosted on the same network must be allocated from the same subnet pool.")


class AddressScopeNotFound(NotFound):
    """404: no such address scope for this caller."""

    def __init__(self, scope_id: str) -> None:
        super().__init__(f"Address scope {scope_id} could not be found.")


class AddressScopeInUse(Conflict):
    """409: subnet pools are in the address scope."""

    def __init__(self, scope_id: str) -> None:
        super().__init__(f"Address scope {scope_id} has one or more subnet pools.")


class AddressScopePrefixConflict(Conflict):
    """409: pools of one address scope would overlap."""

    def __init__(self) -> None:
        super().__init__("Subnet pools within an address scope must have unique prefixes.")


class MeteringLabelNotFound(NotFound):
    """404: no such metering label for this caller."""

    def __init__(self, label_id: str) -> None:
        super().__init__(f"Metering label {label_id} does not exist.")


class MeteringLabelRuleNotFound(NotFound):
    """404: no such rule of a metering label for this caller."""

    def __init__(self, rule_id: str) -> None:
        super().__init__(f"Metering label rule {rule_id} does not exist.")


class AgentNotFound(NotFound):
    """404: no such agent for this caller."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"Agent {agent_id} could not be found.")


class DefaultExternalNetworkExists(Conflict):
    """409: another network is the default external one."""

    def __init__(self, network_id: str) -> None:
        super().__init__(f"A default external network already exists: {network_id}.")


class RbacPolicyNotFound(NotFound):
    """404: no such RBAC policy for this caller."""

    def __init__(self, policy_id: str) -> None:
        super().__init__(f"RBAC policy {policy_id} could not be found.")


class RbacPolicyInUse(Conflict):
    """409: a project that would see the network no more has ports on it."""

    def __init__(self, network_id: str) -> None:
        super().__init__(f"RBAC policy on network {network_id} cannot be removed: ports depend on it.")


class DuplicateRbacPolicy(Conflict):
    """409: the network is shared with the project already."""

    def __init__(self) -> None:
        super().__init__("An RBAC policy already exists with those values.")
