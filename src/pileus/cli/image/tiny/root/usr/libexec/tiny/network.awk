# Makes of network_data.json, as json.awk prints it, a plan by network card:
#
#     MAC mtu 1450 · MAC dhcp · MAC dhcp6 stateful · MAC address 192.0.2.5/24 · MAC route 0.0.0.0/0 192.0.2.1 · dns 192.0.2.2
#
# The document is that of the Compute metadata service (network_data.json, since version 2015-10-15).

BEGIN {
    FS = "\t"
    # Bits that are set in the hexadecimal digits of which a netmask can consist.
    ones["f"] = 4; ones["e"] = 3; ones["c"] = 2; ones["8"] = 1
}

{ data[$1] = $2 }

END {
    for (link = 0; ("/links/" link "/id") in data; link++) {
        mac[data["/links/" link "/id"]] = tolower(data["/links/" link "/ethernet_mac_address"])
        if (data["/links/" link "/mtu"] + 0 > 0)
            print tolower(data["/links/" link "/ethernet_mac_address"]), "mtu", data["/links/" link "/mtu"]
    }
    for (net = 0; ("/networks/" net "/type") in data; net++) network("/networks/" net)
    for (item = 0; ("/services/" item "/type") in data; item++)
        if (data["/services/" item "/type"] == "dns") print "dns", data["/services/" item "/address"]
}

function network(at,  card, type, address, hop, item) {
    card = mac[data[at "/link"]]
    type = data[at "/type"]
    if (card == "") return
    if (type == "ipv4_dhcp" || type == "ipv4_dhcp4") print card, "dhcp"
    if (type == "ipv6_dhcpv6-stateful" || type == "ipv6_dhcp") print card, "dhcp6 stateful"
    if (type == "ipv6_dhcpv6-stateless") print card, "dhcp6 stateless"
    if (type != "ipv4" && type != "ipv6") return
    address = data[at "/ip_address"]
    if (address !~ /\//) address = address "/" bits(data[at "/netmask"])
    print card, "address", address
    for (item = 0; (at "/routes/" item "/gateway") in data; item++) {
        hop = at "/routes/" item
        print card, "route", data[hop "/network"] "/" bits(data[hop "/netmask"]), data[hop "/gateway"]
    }
    for (item = 0; (at "/services/" item "/type") in data; item++)
        if (data[at "/services/" item "/type"] == "dns") print "dns", data[at "/services/" item "/address"]
    if ((at "/gateway") in data)
        print card, "route", (type == "ipv6" ? "::/0" : "0.0.0.0/0"), data[at "/gateway"]
}

# The prefix length of a netmask, of either family.
function bits(mask,  parts, count, at, sum) {
    if (mask ~ /^[0-9]+$/) return mask
    if (mask ~ /:/) {
        for (at = 1; at <= length(mask); at++) sum += ones[tolower(substr(mask, at, 1))]
        return sum + 0
    }
    count = split(mask, parts, ".")
    for (at = 1; at <= count; at++)
        for (sum += 0; parts[at] > 0; parts[at] = int(parts[at] / 2)) sum += parts[at] % 2
    return sum + 0
}
