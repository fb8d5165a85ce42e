package ike

import (
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Mobility tells whether IKE SAs follow a change of address (MOBIKE, RFC 4555).
type Mobility uint8

// The settings.
const (
	// MobilityOff makes a new IKE SA where an address changes. An address that changes in a NAT is followed all the same
	// (RFC 7296 2.23).
	MobilityOff Mobility = iota
	// MobilityOn lets the side that made the IKE SA move it.
	MobilityOn
	// MobilityWithoutNAT does as well, but only to paths that no NAT changes (RFC 4555 3.9).
	MobilityWithoutNAT
)

// AddressesChanged tells this machine's own addresses, at the start and whenever they change.
type AddressesChanged struct {
	Addresses []netip.Addr
	// Sources is the address that the kernel would send from, for the remote addresses that it can reach.
	Sources map[netip.Addr]netip.Addr
}

func (AddressesChanged) event() {}

// UnknownESP says that ESP came for an SPI that nobody has here.
type UnknownESP struct {
	SPI           sa.SPI
	Local, Remote netip.AddrPort // ports are those of the UDP encapsulation, 0 without
	Octets        int            // length of the packet
}

func (UnknownESP) event() {}

// ReasonPeerRestarted says that the peer has proved to have forgotten the IKE SA (RFC 6290).
const ReasonPeerRestarted Reason = "peer-restarted"

// ReasonAddressChanged says that an address of either side is gone, and that what was bound to it could not follow.
const ReasonAddressChanged Reason = "address-changed"
