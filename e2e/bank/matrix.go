package bank

import (
	"fmt"
	"time"
)

// Outcome is what became of an exchange between two machines, as the wire saw it.
type Outcome string

// The outcomes.
const (
	Clear         Outcome = "clear"
	ClearFallback Outcome = "clear after fallback"
	Protected     Outcome = "IPsec"
	Blocked       Outcome = "blocked"
	// Leaked means that payload was seen in clear although the exchange was protected, or failed: always wrong.
	Leaked Outcome = "LEAKED"
)

// Class is a group of machines that behave alike.
type Class string

// The classes, in the order of the matrix.
const (
	NoPolicy     Class = "none"
	Client       Class = "Client"
	Server       Class = "Server"
	SecureServer Class = "Secure Server"
)

// Classes lists the classes in the order of the matrix.
func Classes() []Class { return []Class{NoPolicy, Client, Server, SecureServer} }

// Expected says what must happen between an initiator and a responder whose first packet is in clear: the interaction
// matrix of the three predefined policies.
func Expected(initiator, responder Class) Outcome {
	matrix := map[Class]map[Class]Outcome{
		NoPolicy:     {NoPolicy: Clear, Client: Clear, Server: ClearFallback, SecureServer: Blocked},
		Client:       {NoPolicy: Clear, Client: Clear, Server: Protected, SecureServer: Protected},
		Server:       {NoPolicy: ClearFallback, Client: Protected, Server: Protected, SecureServer: Protected},
		SecureServer: {NoPolicy: Blocked, Client: Protected, Server: Protected, SecureServer: Protected},
	}
	return matrix[initiator][responder]
}

// Cell is one measured exchange.
type Cell struct {
	Initiator, Responder Machine
	From, To             Class
	Expected, Seen       Outcome
	// FirstPacket is the time from the first packet to the answer; 0 when there was none.
	FirstPacket time.Duration
	Wire        Evidence
	Err         string // why the exchange failed; empty when it did not
}

// OK reports whether the cell is as expected.
func (c Cell) OK() bool { return c.Expected == c.Seen }

// Evidence counts what the capture saw between two machines.
type Evidence struct {
	ClearTCP     int // TCP segments in clear, of the exchange's port
	ClearPayload int // of these, segments with the exchange's own payload
	ESP          int
	IKE          int
}

// String prints the counts.
func (e Evidence) String() string {
	return fmt.Sprintf("%d IKE, %d ESP, %d clear TCP, %d with payload", e.IKE, e.ESP, e.ClearTCP, e.ClearPayload)
}

// fallbackDelay is the least delay that tells a fallback from plain clear traffic: the policies wait 3 s.
const fallbackDelay = 2500 * time.Millisecond

// judge decides from the exchange and the wire alone.
func judge(succeeded bool, delay time.Duration, e Evidence) Outcome {
	switch {
	case !succeeded && e.ClearPayload == 0:
		return Blocked
	case !succeeded:
		return Leaked
	case e.ESP > 0 && e.ClearPayload == 0:
		return Protected
	case e.ESP > 0:
		return Leaked
	case e.ClearPayload == 0:
		return Blocked // an exchange that succeeded without a packet on this wire did not take place here
	case e.IKE > 0 && delay >= fallbackDelay:
		return ClearFallback
	}
	return Clear
}
