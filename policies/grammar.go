package policies

import (
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// The tables in this file and in grammar_values.go are the language: the decoder takes from them which fields a mapping
// has and which of them it must have, the JSON Schema and the language reference what each field holds, means and
// defaults to. A new field begins here; a test fails where the decoder does not read a field of these tables.

// object describes a mapping of fields.
type object struct {
	name   string // as errors and the reference call it
	doc    string // one sentence or more
	fields []fieldRow
}

// fieldRow describes one field.
type fieldRow struct {
	name      string
	kind      valueType
	required  bool
	otherwise string // what holds without the field; empty where that is nothing, or the field is required
	doc       string
}

// names lists the fields in the order of the table.
func (o *object) names() []string {
	out := make([]string, len(o.fields))
	for i, f := range o.fields {
		out[i] = f.name
	}
	return out
}

// requiredNames lists the required fields.
func (o *object) requiredNames() []string {
	var out []string
	for _, f := range o.fields {
		if f.required {
			out = append(out, f.name)
		}
	}
	return out
}

var (
	rowName        = fieldRow{name: "name", kind: typeName, required: true, doc: "Tells the object from others of its kind; upper and lower case do not."}
	rowDescription = fieldRow{name: "description", kind: typeDescription, doc: "A comment for people. It is kept and shown, and changes nothing."}
)

var policyObject = object{
	name: string(KindPolicy), doc: "The unit of assignment: rules, and what goes with them. A machine has one policy at a time, and it has it whole.",
	fields: []fieldRow{
		rowName, rowDescription,
		{name: "rules", kind: listOf(&ruleObject), doc: "What happens to which packets. Their order means nothing: the most specific filter decides, see [the order of filters](#the-order-of-filters)."},
		{name: "defaultResponse", kind: mappingOf(&defaultResponseObject), otherwise: "not active", doc: "Answers peers that ask for security where no rule covers them."},
		{name: "keyExchange", kind: mappingOf(&keyExchangeObject), doc: "Settings of IKE SAs, which Windows calls main mode."},
		{name: "exemptions", kind: mappingOf(&exemptionsObject), otherwise: "IKE and what a node cannot do without", doc: "Packets that no rule sees, beside those that are always exempt."},
	},
}

var ruleObject = object{
	name: "rule", doc: "Joins a filter list with a filter action.",
	fields: []fieldRow{
		{name: "name", kind: typeName, required: true, doc: "Unique in the policy."},
		rowDescription,
		{name: "active", kind: typeFlag, otherwise: "`true`", doc: "A rule that is not active is kept and does nothing."},
		{name: "filterList", kind: referenceTo(KindFilterList), required: true, doc: "Which packets."},
		{name: "filterAction", kind: referenceTo(KindFilterAction), required: true, doc: "What happens to them."},
		{name: "authentication", kind: listOf(&authenticationObject), otherwise: "by certificate of the fleet", doc: "The ways to authenticate a peer, most preferred first; only where the action negotiates."},
		{name: "interfaces", kind: oneOf(spd.InterfacesAll, spd.InterfacesLAN, spd.InterfacesRemoteAccess), otherwise: "`all`", doc: "Limits the rule to a class of interfaces, the connection type of Windows: those for remote access, which every node knows by their names, or all others. See [interfaces](#interfaces)."},
		{name: "tunnel", kind: mappingOf(&tunnelObject), otherwise: "transport mode", doc: "Makes the rule one of tunnel mode. Its filters name addresses only and read from the own side to the far side; the reverse direction is made from them."},
		{name: "peerGroups", kind: listOf1(typeDN), otherwise: "every peer that authenticates", doc: "Up to 16 groups of the directory whose members alone are accepted as peers, directly or through other groups; only with certificates and without fallback. Nodes keep the members and decide without the directory."},
	},
}

var tunnelObject = object{
	name: "tunnel", doc: "The endpoints of a tunnel.",
	fields: []fieldRow{
		{name: "remote", kind: typeEndpoint, required: true, doc: "The far endpoint."},
		{name: "local", kind: typeEndpoint, otherwise: "the source address of the route", doc: "The own endpoint."},
	},
}

var authenticationObject = object{
	name: "authentication", doc: "One way to authenticate a peer.",
	fields: []fieldRow{
		{name: "method", kind: oneOf(spd.AuthCertificate, spd.AuthPSK), required: true, doc: "`certificate` proves the machine account of the peer, as Kerberos does in Windows. `psk` is a preshared key, for peers that have no certificate."},
		{name: "ca", kind: typeDN, otherwise: "the trust bundle of the fleet", doc: "The subject of a CA that must be in the chain of the peer. Letters of every script may stand in it, as UTF-8."},
		{name: "secretRef", kind: referenceTo("secret"), doc: "The preshared key, by the name of a secret. The key itself never stands in a document."},
		{name: "localID", kind: typeID, otherwise: "the identity of the machine", doc: "The identity that this side shows."},
		{name: "remoteID", kind: typeID, otherwise: "every identity that is believed", doc: "The identity that the peer must prove."},
		{name: "ppkRef", kind: referenceTo("secret"), doc: "A postquantum preshared key that is mixed into the keys (RFC 8784), by the name of a secret; the peer knows it by the same name."},
		{name: "ppkOptional", kind: typeFlag, otherwise: "`false`", doc: "Accepts peers without that key as well."},
		{name: "accountMapping", kind: typeFlag, otherwise: "`false`", doc: "Accepts a certificate only if it names a machine of the directory that is admitted, whatever `revocation` says; without it a certificate of any CA in the trust bundle is enough. Machines of the fleet always have an account; it matters for CAs beside the fleet's own."},
		{name: "excludeCAName", kind: typeFlag, otherwise: "`false`", doc: "Keeps the CA of this entry, or those of the fleet without `ca`, out of the certificate requests of the machine, so that strangers do not learn whom it trusts. Peers then choose their certificate themselves."},
	},
}

var defaultResponseObject = object{
	name: "defaultResponse", doc: "Answers a peer that asks for security where no rule covers it. It never asks by itself.",
	fields: []fieldRow{
		{name: "active", kind: typeFlag, required: true, doc: "Whether there is a default response."},
		{name: "level", kind: typeLevel, doc: "As in a filter action."},
		{name: "offers", kind: listOf(typeESPOffer), otherwise: "those of `level`, or " + usualOffers, doc: "What is accepted, most preferred first."},
		{name: "authentication", kind: listOf(&authenticationObject), otherwise: "by certificate of the fleet", doc: "As in a rule."},
		{name: "pfs", kind: typeFlag, otherwise: "`false`", doc: "A key exchange for every Child SA."},
		{name: "idle", kind: typeDuration, otherwise: "`5m`", doc: "Ends an association that carried nothing for so long."},
	},
}

var keyExchangeObject = object{
	name: "keyExchange", doc: "Settings of IKE SAs (RFC 7296).",
	fields: []fieldRow{
		{name: "offers", kind: listOf(typeIKEOffer), otherwise: "modern ones, with ML-KEM-768 first", doc: "Most preferred first; see [offers](#offers)."},
		{name: "lifetime", kind: typeDuration, otherwise: "`8h`", doc: "How long the keys of an IKE SA are used before it is rekeyed."},
		{name: "childless", kind: oneOf(spd.ChildlessAccept, spd.ChildlessPrefer, spd.ChildlessNever), otherwise: "`accept`", doc: "Whether peers may make an IKE SA without its first Child SA (RFC 6023), and whether this side does, so that each Child SA has a key exchange of its own."},
		{name: "childLimit", kind: numberBetween(1, spd.MaxChildLimit), otherwise: "no limit", doc: "How many Child SAs, rekeyed ones included, may take their keys from one key exchange of the IKE SA before that is rekeyed; `1` is the master PFS of Windows."},
		{name: "mobility", kind: oneOf(spd.MobilityAllow, spd.MobilityWithoutNAT, spd.MobilityNever), otherwise: "`allow`", doc: "Whether IKE SAs and tunnels move with a change of address (RFC 4555)."},
		{name: "revocation", kind: oneOf(spd.RevocationKnown, spd.RevocationOff, spd.RevocationStrict), otherwise: "`known`", doc: "Who is refused: peers known to be revoked or not admitted, nobody for that, or everybody while there is no news of the last day; the strong CRL check of Windows."},
		{name: "reauthentication", kind: typeDuration, otherwise: "as long as the certificates", doc: "How long an authentication counts (RFC 4478), up to 365 days."},
		{name: "transcript", kind: oneOf(spd.TranscriptPrefer, spd.TranscriptRequire, spd.TranscriptNever), otherwise: "`prefer`", doc: "Whether both sides authenticate both messages of IKE_SA_INIT."},
		{name: "announceAuthentication", kind: typeFlag, otherwise: "`false`", doc: "Tells peers which methods are accepted (RFC 9593)."},
	},
}

var exemptionsObject = object{
	name: "exemptions", doc: "Packets that no rule sees. IKE, ESP, loopback, neighbour and router discovery, DHCP, the controller and the path MTU are always exempt.",
	fields: []fieldRow{
		{name: "level", kind: numberBetween(0, highestNumber), otherwise: "`3`", doc: "As `ipsecexempt` of Windows: `0` adds `multicast`, `broadcast`, `kerberos` and `rsvp`, `1` the first two of them, `2` the other two, `3` none."},
		{name: "multicast", kind: typeFlag, otherwise: "`false`", doc: "Multicast, in both directions."},
		{name: "broadcast", kind: typeFlag, otherwise: "`false`", doc: "Broadcast, in both directions."},
		{name: "kerberos", kind: typeFlag, otherwise: "`false`", doc: "Port 88 of TCP and UDP at either end. What comes from it reaches UDP ports from 32768 on, whoever sends it; a rule that permits it to the servers is better."},
		{name: "rsvp", kind: typeFlag, otherwise: "`false`", doc: "Resource reservation, protocol 46."},
		{name: "icmp", kind: typeFlag, otherwise: "`false`", doc: "ICMP and ICMPv6 of every type, so that ping, traceroute and the search for a path MTU behave as without IPsec. What the node itself cannot do without is always exempt."},
		{name: "breakGlassTCP", kind: listOf(typePort), doc: "Local TCP ports that stay reachable in clear, such as 22, for the day on which something is wrong with the policy."},
	},
}

var filterListObject = object{
	name: string(KindFilterList), doc: "A named set of filters that any number of rules may use.",
	fields: []fieldRow{
		rowName, rowDescription,
		{name: "filters", kind: listOf(&filterObject), required: true, doc: "At least one."},
	},
}

var filterObject = object{
	name: "filter", doc: "Describes packets.",
	fields: []fieldRow{
		{name: "name", kind: typeName, doc: "Unique in the list. It names the filter in what is shown and reported."},
		rowDescription,
		{name: "source", kind: typeAddress, required: true, doc: "Where packets come from."},
		{name: "destination", kind: typeAddress, required: true, doc: "Where they go."},
		{name: "protocol", kind: typeProtocol, otherwise: "`any`", doc: "The IP protocol."},
		{name: "sourcePort", kind: typePorts, otherwise: "`any`", doc: "Only with a protocol that has ports: TCP, UDP, UDP-Lite, SCTP, DCCP."},
		{name: "destinationPort", kind: typePorts, otherwise: "`any`", doc: "Likewise."},
		{name: "mirrored", kind: typeFlag, otherwise: "`true`", doc: "The reverse direction matches as well, with addresses and ports swapped. `false` makes a filter of one direction."},
	},
}

var filterActionObject = object{
	name: string(KindFilterAction), doc: "What happens to the packets of a list; any number of rules may use it. All fields but the first three are for `negotiate` alone.",
	fields: []fieldRow{
		rowName, rowDescription,
		{name: "action", kind: oneOf(spd.ActionPermit, spd.ActionBlock, spd.ActionNegotiate), required: true, doc: "Let pass in clear, drop silently, or protect with IPsec."},
		{name: "inpass", kind: typeFlag, otherwise: "`false`", doc: "Accept unsecured communication, but always respond using IPsec: clear inbound packets pass, and the reply is negotiated."},
		{name: "fallback", kind: fallbackType, otherwise: "`none`", doc: "Allow unsecured communication with a peer that does not answer IKE: `wait` after a silence, `discover` at once with the negotiation in parallel. Never with a peer that answered and failed, and a flow that was secured never goes back."},
		{name: "level", kind: typeLevel, doc: "Stands for [offers](#levels), in place of `offers`."},
		{name: "offers", kind: listOf(typeESPOffer), otherwise: "those of `level`", doc: "Most preferred first; see [offers](#offers). `negotiate` needs `level` or `offers`. All of them have the same lifetime."},
		{name: "pfs", kind: typeFlag, otherwise: "`false`", doc: "A key exchange for every Child SA. An offer that names no group stands for one with each group of the key exchange."},
		{name: "associations", kind: numberBetween(1, spd.MaxAssociations), otherwise: "`1`", doc: "How many Child SAs with the same selectors are wanted, for as many processors (RFC 9611)."},
	},
}

var fallbackObject = object{
	name: "fallback", doc: "The fallback with its times.",
	fields: []fieldRow{
		{name: "mode", kind: oneOf(spd.FallbackNone, spd.FallbackWait, spd.FallbackDiscover), required: true, doc: "As the word alone."},
		{name: "delay", kind: typeDuration, otherwise: "`3s`", doc: "The silence before clear traffic; only with `wait`."},
		{name: "ttl", kind: typeDuration, otherwise: "`5m`", doc: "How long clear traffic flows before security is tried again."},
	},
}

var linkObject = object{
	name: string(KindLink), doc: "Assigns a policy to a container of the directory.",
	fields: []fieldRow{
		{name: "name", kind: typeName, doc: "Tells two links of one policy to one container apart."},
		rowDescription,
		{name: "policy", kind: referenceTo(KindPolicy), required: true, doc: "Which policy."},
		{name: "container", kind: typeDN, required: true, doc: "To which organizational unit (`OU=`) or domain (`DC=`), or to which [Site](#site), as `cn=NAME,cn=Sites`."},
		{name: "order", kind: numberBetween(1, maxOrder), required: true, doc: "The place among the links of the container; 1 wins."},
		{name: "enforced", kind: typeFlag, otherwise: "`false`", doc: "Wins over every link that is not enforced, and over enforced links of containers below; blocked inheritance does not stop it."},
		{name: "disabled", kind: typeFlag, otherwise: "`false`", doc: "The link is kept and does nothing."},
		{name: "groups", kind: mappingOf(&groupsObject), otherwise: "every machine", doc: "To whom below the container it applies."},
	},
}

var groupsObject = object{
	name: "groups", doc: "Filters a link by groups of the directory.",
	fields: []fieldRow{
		{name: "apply", kind: listOf1(typeDN), otherwise: "every machine", doc: "Only members of these groups, and machines that are named themselves."},
		{name: "deny", kind: listOf(typeDN), doc: "No member of these groups and no machine that is named itself, also of `apply`."},
	},
}

var containerObject = object{
	name: string(KindContainer), doc: "Settings of one container of the directory.",
	fields: []fieldRow{
		rowDescription,
		{name: "container", kind: typeDN, required: true, doc: "Which organizational unit or domain."},
		{name: "blockInheritance", kind: typeFlag, otherwise: "`false`", doc: "Links of containers above do not reach below, unless they are enforced."},
	},
}

var settingsObject = object{
	name: string(KindSettings), doc: "Settings of the whole fleet. There is at most one such document.",
	fields: []fieldRow{
		rowDescription,
		{name: "breakGlassTCP", kind: listOf(typePort), doc: "Added to those of every policy."},
		{name: "blockApply", kind: oneOf(BlockErrors, BlockWarnings, BlockNever), otherwise: "`error`", doc: "How grave a finding of `bailiwick verify` has to be to keep a change from being applied that brings it: one of severity error, also one of severity warning, or none. What a node could not enforce is refused whatever this says."},
	},
}

var policyTestObject = object{
	name: string(KindPolicyTest), doc: "Says what must hold between machines. A change of documents that breaks it is refused.",
	fields: []fieldRow{
		rowName, rowDescription,
		{name: "assertions", kind: listOf(&assertionObject), required: true, doc: "At least one."},
	},
}

var assertionObject = object{
	name: "assertion", doc: "What becomes of some traffic.",
	fields: []fieldRow{
		{name: "name", kind: typeName, doc: "Names the assertion where it fails."},
		rowDescription,
		{name: "from", kind: mappingOf(&endpointObject), required: true, doc: "Who begins."},
		{name: "to", kind: mappingOf(&endpointObject), required: true, doc: "To whom."},
		{name: "traffic", kind: typeTraffic, otherwise: "`any`", doc: "The protocol and, behind a slash, the destination port or range."},
		{name: "is", kind: outcomesType, required: true, doc: "The outcome that is right, or a list of those that are."},
		{name: "offer", kind: typeESPOffer, otherwise: "any", doc: "The offer that must be chosen, without a lifetime; only where `ipsec` alone is right."},
	},
}

var endpointObject = object{
	name: "endpoint", doc: "Names machines, by exactly one of the fields.",
	fields: []fieldRow{
		{name: "machine", kind: typeName, doc: "One machine, by its name, DNS name, DN or UUID."},
		{name: "container", kind: typeDN, doc: "Every machine in it and below."},
		{name: "group", kind: typeDN, doc: "Every member, directly or through other groups."},
		{name: "policy", kind: referenceTo(KindPolicy), doc: "Every machine that the policy applies to; `none` means those without one."},
	},
}

// objects are the documents by kind.
var objects = map[Kind]*object{
	KindPolicy: &policyObject, KindFilterList: &filterListObject, KindFilterAction: &filterActionObject,
	KindLink: &linkObject, KindContainer: &containerObject, KindSite: &siteObject, KindSettings: &settingsObject,
	KindPolicyTest: &policyTestObject,
}
