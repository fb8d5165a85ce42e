package ikesim

import (
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// answered is a node that asks for protection and one that gives it by its default response only, with tokens.
func answered(t *testing.T) (w *World, asks, answers *Node) {
	t.Helper()
	w = New(1, calm)
	w.Tracing = true
	asks = w.Add("a.example", addrA, config("a.example", addrA, meshRule(addrA, pskAuth)))
	c := config("b.example", addrB)
	c.DefaultResponse = &ike.Rule{Mode: sa.Transport, Offers: []proposal.ESP{espOffer}, Auth: []spd.Auth{pskAuth}}
	answers = w.Add("b.example", addrB, c)
	for _, n := range []*Node{asks, answers} {
		n.Config.CrashSecret = sa.NewSecret([]byte("the crash secret of " + n.Name))
		n.boot()
	}
	asks.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	mirrored(t, w, asks, answers, 1)
	return w, asks, answers
}

// outbound reports whether nothing to another node goes in clear: a Child SA takes it, whatever the peer makes of that, or
// is about to be switched to, and the datapath holds packets until then.
func outbound(n *Node) bool {
	for _, i := range n.SADB {
		if i.Out {
			return true
		}
	}
	return false
}

// guarded runs a world and fails when a node, meanwhile, sends in clear what its peer once asked to protect.
func guarded(t *testing.T, w *World, n *Node, d time.Duration) {
	t.Helper()
	for end := w.Now.Add(d); w.Now.Before(end); w.Run(time.Millisecond) {
		if !outbound(n) {
			t.Fatalf("%s protects nothing any more at %s\n%s", n.Name, w.Now, story(w))
		}
	}
}

// lose restarts a node without a word and lets it hear the ESP of its peer.
func lose(n, peer *Node) {
	c := peer.SADB[peer.child()].Child
	n.Crash()
	n.Do(ike.UnknownESP{SPI: c.Out.SPI, Local: c.Remote, Remote: c.Local, Octets: 100})
}

// A node without rules protects what a peer asked it to protect, and nothing asks for it again when that peer was
// restarted: the node does, and keeps the old Child SA until the new one is there, so that nothing goes in clear.
func TestDefaultResponseSurvivesRestartOfThePeer(t *testing.T) {
	w, asks, answers := answered(t)
	lose(asks, answers)
	guarded(t, w, answers, 2*time.Second)
	mirrored(t, w, asks, answers, 1)
	c := answers.SADB[answers.child()].Child
	if !c.DefaultResponse || c.Rule != "" {
		t.Errorf("not a Child SA of the default response: %+v", c)
	}
	if n := len(answers.Downs); n != 1 || answers.Downs[0].Reason != ike.ReasonPeerRestarted {
		t.Errorf("want the old IKE SA down once for %s, have %+v", ike.ReasonPeerRestarted, answers.Downs)
	}
	// Once more, now that the one that answers has begun the IKE SA.
	lose(asks, answers)
	guarded(t, w, answers, 10*time.Second)
	mirrored(t, w, asks, answers, 1)
}

// Both begin anew at the same moment, and one Child SA is left.
func TestDefaultResponseAndRestartedPeerBeginAtOnce(t *testing.T) {
	for _, delay := range []time.Duration{0, 3 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, 50 * time.Millisecond} {
		w, asks, answers := answered(t)
		lose(asks, answers)
		guarded(t, w, answers, delay)
		asks.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		guarded(t, w, answers, 20*time.Second)
		mirrored(t, w, asks, answers, 1)
	}
}

// What the default response protects outlives the authentication, when this side has begun the IKE SA: it authenticates
// anew in time.
func TestDefaultResponseReauthenticates(t *testing.T) {
	w, asks, answers := answered(t)
	c := answers.Config
	c.Reauthentication = 2 * time.Minute
	answers.Do(ike.Reconfigure{Config: c})
	lose(asks, answers)
	guarded(t, w, answers, time.Second)
	before := answers.Ups
	guarded(t, w, answers, 3*time.Minute)
	mirrored(t, w, asks, answers, 1)
	if answers.Ups == before {
		t.Errorf("no new authentication in three minutes\n%s", story(w))
	}
}

// A restarted peer whose policy protects nothing any more gets clear traffic, as the default response allows, once it has
// said so.
func TestDefaultResponseGivesUpAPeerWithoutPolicy(t *testing.T) {
	w, asks, answers := answered(t)
	asks.Config.Rules = nil
	lose(asks, answers)
	w.Run(40 * time.Second)
	restarted := func(d ike.Down) bool { return d.Reason == ike.ReasonPeerRestarted }
	if len(answers.SADB) != 0 || !slices.ContainsFunc(answers.Downs, restarted) {
		t.Errorf("want nothing left, have %d Child SAs and %+v\n%s", len(answers.SADB), answers.Downs, story(w))
	}
}
