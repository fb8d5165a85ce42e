package spdpb

import (
	"github.com/bailiwick-net/bailiwick/policies/spd"
	policyv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/policy/v1"
)

// enumeration pairs the values of a closed set with their numbers on the wire. Number 0 is never among them, so that a
// value that was left out is refused.
type enumeration[V comparable, N ~int32] []struct {
	value  V
	number N
}

func (e enumeration[V, N]) number(v V) N {
	for _, pair := range e {
		if pair.value == v {
			return pair.number
		}
	}
	return 0
}

func (e enumeration[V, N]) value(n N) (V, bool) {
	for _, pair := range e {
		if pair.number == n {
			return pair.value, true
		}
	}
	var none V
	return none, false
}

var actions = enumeration[spd.Action, policyv1.Action]{
	{spd.ActionBlock, policyv1.Action_ACTION_BLOCK},
	{spd.ActionPermit, policyv1.Action_ACTION_PERMIT},
	{spd.ActionNegotiate, policyv1.Action_ACTION_NEGOTIATE},
}

var addressKinds = enumeration[spd.AddressKind, policyv1.AddressKind]{
	{spd.AddressAny, policyv1.AddressKind_ADDRESS_KIND_ANY},
	{spd.AddressMe, policyv1.AddressKind_ADDRESS_KIND_ME},
	{spd.AddressPrefix, policyv1.AddressKind_ADDRESS_KIND_PREFIX},
	{spd.AddressRange, policyv1.AddressKind_ADDRESS_KIND_RANGE},
	{spd.AddressDNSServers, policyv1.AddressKind_ADDRESS_KIND_DNS_SERVERS},
	{spd.AddressDHCPServer, policyv1.AddressKind_ADDRESS_KIND_DHCP_SERVER},
	{spd.AddressDefaultGateway, policyv1.AddressKind_ADDRESS_KIND_DEFAULT_GATEWAY},
	{spd.AddressName, policyv1.AddressKind_ADDRESS_KIND_NAME},
}

var fallbackModes = enumeration[spd.FallbackMode, policyv1.FallbackMode]{
	{spd.FallbackWait, policyv1.FallbackMode_FALLBACK_MODE_WAIT},
	{spd.FallbackDiscover, policyv1.FallbackMode_FALLBACK_MODE_DISCOVER},
}

var authMethods = enumeration[spd.AuthMethod, policyv1.AuthMethod]{
	{spd.AuthCertificate, policyv1.AuthMethod_AUTH_METHOD_CERTIFICATE},
	{spd.AuthPSK, policyv1.AuthMethod_AUTH_METHOD_PSK},
}

var interfaceClasses = enumeration[spd.Interfaces, policyv1.InterfaceClass]{
	{spd.InterfacesAll, policyv1.InterfaceClass_INTERFACE_CLASS_ALL},
	{spd.InterfacesLAN, policyv1.InterfaceClass_INTERFACE_CLASS_LAN},
	{spd.InterfacesRemoteAccess, policyv1.InterfaceClass_INTERFACE_CLASS_REMOTE_ACCESS},
}
