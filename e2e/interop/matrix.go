package interop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Status says how far a row of the matrix is shown.
type Status uint8

// The statuses.
const (
	// Shown means that the behaviour is there and the tests of the row prove it.
	Shown Status = iota + 1
	// Refused means that the behaviour is left out by design: the tests prove that a peer which wants it gets the right
	// protocol answer, that nothing goes in clear and that the node says why.
	Refused
	// OutOfScope means that there is nothing to show with this product; the note says why.
	OutOfScope
)

// String is the word that the printed matrix uses.
func (s Status) String() string {
	switch s {
	case Shown:
		return "shown"
	case Refused:
		return "refused as designed"
	case OutOfScope:
		return "not in scope"
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// Peer is who stands at the other end of the wire.
type Peer uint8

// The peers. What the kernel of a test machine cannot carry runs in a guest with a kernel of its own.
const (
	NoPeer       Peer = iota
	StrongSwan59      // Debian 12's, with ESP in user space
	StrongSwan61      // a newer one, with ML-KEM and ESP without UDP
	KernelESP         // StrongSwan61 in a guest, on the kernel's ESP
	Script            // messages made by hand, sent to the node and to strongSwan
	Faults            // none: the node's own datapath fails
)

// String names the peer.
func (p Peer) String() string {
	switch p {
	case NoPeer:
		return "-"
	case StrongSwan59:
		return "strongSwan 5.9.8"
	case StrongSwan61:
		return "strongSwan 6.1"
	case KernelESP:
		return "strongSwan 6.1 on kernel ESP"
	case Script:
		return "handmade messages"
	case Faults:
		return "own faults"
	}
	return fmt.Sprintf("peer(%d)", uint8(p))
}

// Row is one behaviour of IKEv2 peers.
type Row struct {
	Number int
	Name   string
	Proves string // in one sentence, what its tests assert
	Peers  []Peer
	Status Status
	Note   string   // why something is refused or out of scope, and what a peer does differently
	Tests  []string // "interop/strongswan.TestRekey": folder below e2e, and test function
}

// Rows returns the matrix in the order of its numbers.
func Rows() []Row { return slices.Clone(rows) }

// Shows registers the running test for rows of the matrix: it fails where the matrix does not list it there. folder is
// that of the test below e2e.
func Shows(t *testing.T, folder string, numbers ...int) {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	for _, n := range numbers {
		i := slices.IndexFunc(rows, func(r Row) bool { return r.Number == n })
		if i < 0 || !slices.Contains(rows[i].Tests, folder+"."+name) {
			t.Errorf("row %d of the interop matrix does not list %s.%s", n, folder, name)
		}
	}
}

// Markdown prints the matrix.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Interop matrix\n\n" +
		"What the IKEv2 of the node is held to against real peers, one row for each behaviour. Every test that is named\n" +
		"here runs with `make test`, in network namespaces, and fails when its row is not listed; this file is printed from\n" +
		"the table in `rows.go` (`go test ./e2e/interop -run TestMatrix -update`).\n\n")
	count := map[Status]int{}
	for _, r := range rows {
		count[r.Status]++
	}
	for _, s := range []Status{Shown, Refused, OutOfScope} {
		fmt.Fprintf(&b, "- %s: %d\n", s, count[s])
	}
	b.WriteString("\n| # | behaviour | what is asserted | peer | status | tests |\n|---|---|---|---|---|---|\n")
	for _, r := range rows {
		var peers []string
		for _, p := range r.Peers {
			peers = append(peers, p.String())
		}
		if peers == nil {
			peers = []string{NoPeer.String()}
		}
		status := r.Status.String()
		if r.Note != "" {
			status += ": " + r.Note
		}
		var tests []string
		for _, t := range r.Tests {
			tests = append(tests, "`"+t+"`")
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s |\n",
			r.Number, r.Name, r.Proves, strings.Join(peers, ", "), status, strings.Join(tests, " "))
	}
	return b.String()
}
