package ikesim

import (
	"fmt"
	"io"
	"strings"

	"github.com/bailiwick-net/bailiwick/node/ike/engine"
)

// nonceOctets is the length of the nonces that the engine draws; nothing else that it draws while SAs are up is as long.
const nonceOctets = 32

// loaded is the randomness of an engine whose nonces a test makes low or high.
type loaded struct {
	io.Reader
	begun, low bool
	drawn      int
}

// load gives the node, which has done nothing yet, such an engine.
func (n *Node) load() *loaded {
	l := &loaded{Reader: n.source}
	n.Engine = engine.New(n.Config, l)
	return l
}

// begin makes the next nonce lower than all others, or all of them high. It is that of the own request, when this side
// begins before it hears from the other: so the own exchange has the lowest of the four nonces (RFC 7296 2.8.1).
func (l *loaded) begin(low bool) { l.begun, l.low, l.drawn = true, low, 0 }

func (l *loaded) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if !l.begun || n != nonceOctets {
		return n, err
	}
	if p[0] |= 0x80; l.low && l.drawn == 0 {
		p[0] = 0
	}
	l.drawn++
	return n, err
}

// wrongSide tells what shows that not the loser has lost; "" when it has.
func (c crossing) wrongSide(text string, loser, winner *Node) string {
	if strings.HasPrefix(c.name, "IKE/IKE") {
		if sas := winner.Engine.Snapshot().SAs; len(sas) != 1 || !sas[0].Initiator {
			return fmt.Sprintf("%s has the lowest nonce, and not the IKE SA of %s is left", loser.Name, winner.Name)
		}
	} else if !contains(text, loser.Name, "collision lost") {
		return loser.Name + " has the lowest nonce and has not lost"
	}
	if contains(text, winner.Name, "collision lost") {
		return winner.Name + " has lost, although the other side has the lowest nonce"
	}
	return ""
}
