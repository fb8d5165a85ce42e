package ikev2

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// Which message is legal in which state, and what must be in it (RFC 7296 1.2 to 1.5 and appendix C). A message that no
// row lists is dropped in silence; one that lacks a required payload, or has a payload twice that comes once, is
// INVALID_SYNTAX. Payloads that a row does not list are ignored. N and V are allowed everywhere.
//
// Requests are judged by this side's state when they come; responses by the own request that waits for them.
type row struct {
	exchange wire.ExchangeType
	response bool
	states   []State
	require  []wire.PayloadType
	allow    []wire.PayloadType
	handler  string
}

var table = []row{
	{
		wire.IKESAInit, false, []State{StateKeyExchange},
		[]wire.PayloadType{wire.TypeSA, wire.TypeKE, wire.TypeNonce},
		[]wire.PayloadType{wire.TypeCertReq},
		"Respond",
	},
	{
		wire.IKESAInit, true, []State{StateKeyExchange},
		nil, // SA KE Nonce, or a notify: nothing of it is authentic
		[]wire.PayloadType{wire.TypeSA, wire.TypeKE, wire.TypeNonce, wire.TypeCertReq},
		"receiveInitResponse",
	},
	{
		wire.IKEIntermediate, false, []State{StateIntermediate},
		[]wire.PayloadType{wire.TypeKE}, // nothing but an additional key exchange is agreed on to need one (RFC 9370 2.2.2)
		nil,
		"serveIntermediate",
	},
	{
		wire.IKEIntermediate, true, []State{StateIntermediate},
		nil, // KE, or a notify
		[]wire.PayloadType{wire.TypeKE},
		"receiveIntermediate",
	},
	{
		wire.IKEAuth, false, []State{StateAuthenticating},
		[]wire.PayloadType{wire.TypeIDi}, // and SA, TSi, TSr together, or none of them (RFC 6023); without AUTH it asks for EAP
		[]wire.PayloadType{wire.TypeAuth, wire.TypeIDr, wire.TypeCert, wire.TypeCertReq, wire.TypeConfig, wire.TypeSA, wire.TypeTSi, wire.TypeTSr},
		"serveAuth",
	},
	{
		wire.IKEAuth, true, []State{StateAuthenticating},
		nil, // IDr AUTH and the Child SA or its refusal, or a notify
		[]wire.PayloadType{wire.TypeIDr, wire.TypeCert, wire.TypeAuth, wire.TypeSA, wire.TypeTSi, wire.TypeTSr, wire.TypeConfig},
		"receiveAuthResponse",
	},
	{
		wire.CreateChildSA, false, []State{StateEstablished, StateRekeyed, StateDeleting},
		[]wire.PayloadType{wire.TypeSA, wire.TypeNonce},
		[]wire.PayloadType{wire.TypeKE, wire.TypeTSi, wire.TypeTSr, wire.TypeConfig},
		"serveCreate",
	},
	{
		wire.CreateChildSA, true, []State{StateEstablished, StateRekeyed, StateDeleting},
		nil, // SA Nonce and KE, TSi, TSr as requested, or a notify
		[]wire.PayloadType{wire.TypeSA, wire.TypeNonce, wire.TypeKE, wire.TypeTSi, wire.TypeTSr, wire.TypeConfig},
		"task.finish",
	},
	{
		wire.IKEFollowupKE, false, []State{StateEstablished, StateRekeyed, StateDeleting},
		[]wire.PayloadType{wire.TypeKE},
		nil,
		"serveFollowup",
	},
	{
		wire.IKEFollowupKE, true, []State{StateEstablished, StateRekeyed, StateDeleting},
		nil, // KE, or a notify
		[]wire.PayloadType{wire.TypeKE},
		"finishFollowup",
	},
	{
		wire.Informational, false, []State{StateEstablished, StateRekeyed, StateDeleting},
		nil, []wire.PayloadType{wire.TypeDelete, wire.TypeConfig},
		"serveInformational",
	},
	{
		wire.Informational, true, []State{StateEstablished, StateRekeyed, StateDeleting},
		nil, []wire.PayloadType{wire.TypeDelete, wire.TypeConfig},
		"task.finish",
	},
}

// once are the payloads of which a message has at most one.
var once = []wire.PayloadType{
	wire.TypeSA, wire.TypeKE, wire.TypeIDi, wire.TypeIDr, wire.TypeAuth, wire.TypeNonce, wire.TypeTSi, wire.TypeTSr,
}

var errNotNow = errors.New("message does not belong here")

// accepted looks a message up in the table: nil, errNotNow, or what is wrong with its payloads.
func accepted(state State, h wire.Header, payloads []wire.Payload) error {
	i := slices.IndexFunc(table, func(r row) bool { return r.exchange == h.Exchange && r.response == h.Response() })
	if i < 0 || !slices.Contains(table[i].states, state) {
		return fmt.Errorf("%w: %s while %s", errNotNow, h.Exchange, state)
	}
	// Only the initiator asks before the end of IKE_AUTH.
	if (h.Exchange == wire.IKEAuth || h.Exchange == wire.IKEIntermediate) && h.FromInitiator() == h.Response() {
		return fmt.Errorf("%w: %s from the wrong side", errNotNow, h.Exchange)
	}
	count := make(map[wire.PayloadType]int)
	for _, p := range payloads {
		count[p.PayloadType()]++
	}
	for _, t := range once {
		if count[t] > 1 {
			return fmt.Errorf("%s with %d %s payloads", h.Exchange, count[t], t)
		}
	}
	for _, t := range table[i].require {
		if count[t] == 0 {
			return fmt.Errorf("%s without %s payload", h.Exchange, t)
		}
	}
	return nil
}

// Tables prints the acceptance table and the collision table, for documentation and for a golden test.
func Tables() string {
	var b strings.Builder
	list := func(types []wire.PayloadType) string {
		if len(types) == 0 {
			return "-"
		}
		var names []string
		for _, t := range types {
			names = append(names, t.String())
		}
		return strings.Join(names, " ")
	}
	for _, r := range table {
		kind := "request"
		if r.response {
			kind = "response"
		}
		var states []string
		for _, s := range r.states {
			states = append(states, s.String())
		}
		fmt.Fprintf(&b, "%s %s\n  state:   %s\n  require: %s\n  allow:   %s\n  handler: %s\n",
			r.exchange, kind, strings.Join(states, ", "), list(r.require), list(r.allow), r.handler)
	}
	b.WriteString("\n")
	for s := range situations {
		fmt.Fprintf(&b, "%s\n", s)
		for i := range incomings {
			fmt.Fprintf(&b, "  %-13s %s\n", i, collisions[s][i])
		}
	}
	return b.String()
}
