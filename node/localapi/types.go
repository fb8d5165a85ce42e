// Package localapi is the node's window: a unix socket, for root only, that tells what the node enforces and why.
//
// Its invariant: it shows no secret and changes nothing but by the named commands (rekey, rules). It leaves what it tells to
// node/agent, node/ike/engine and node/datapath, and how it looks to cmd/bailiwick-node.
package localapi

import (
	"time"

	"github.com/bailiwick-net/bailiwick/node/keyring"
)

// Status answers "status".
type Status struct {
	Version     string    `json:"version"`
	Identity    string    `json:"identity,omitempty"`
	NotAfter    time.Time `json:"certificateNotAfter,omitzero"`
	Key         string    `json:"key,omitempty"`        // where the machine's private key is
	KeyProblem  string    `json:"keyProblem,omitempty"` // what is wrong with it, and what to do
	Policy      string    `json:"policy"`
	Container   string    `json:"container,omitempty"`
	Revision    uint64    `json:"revision"`
	Digest      string    `json:"digest"`
	Probation   bool      `json:"probation"` // in force, not committed yet
	Controller  string    `json:"controller,omitempty"`
	Controllers []string  `json:"controllers,omitempty"`
	Problem     string    `json:"problem,omitempty"`
	Addresses   []string  `json:"addresses"`
	Names       []string  `json:"names,omitempty"` // DNS names of the policy, each with its addresses
	Backend     string    `json:"backend"`
	Notes       []string  `json:"notes,omitempty"`
	// Local is the local policy; nil without one. Rules are those of this machine's own.
	Local *LocalPolicy `json:"localPolicy,omitempty"`
	Rules []Rules      `json:"rules,omitempty"`
	// Keys are the preshared keys, without their values.
	Keys     []keyring.State   `json:"keys,omitempty"`
	IKESAs   int               `json:"ikeSAs"`
	ChildSAs int               `json:"childSAs"`
	SoftSAs  int               `json:"softSAs"`
	Failures []Failure         `json:"failures,omitempty"`
	Counters map[string]uint64 `json:"counters"`
	// Statistics are the figures of "counters", by name.
	Statistics map[string]uint64 `json:"statistics"`
	// KeyLog is the file that receives all keys; empty, as it must be, unless somebody is debugging.
	KeyLog string `json:"keyLog,omitempty"`
}

// LocalPolicy is the policy for while the directory assigns none.
type LocalPolicy struct {
	Name string `json:"name"`
	File string `json:"file"`
	// Suppressed is why it does not count; empty when it does.
	Suppressed string `json:"suppressed,omitempty"`
}

// Rules is one set of rules that stands beside the policy.
type Rules struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // dynamic or persistent
	File  string `json:"file"` // where it came from
	Rules []Rule `json:"rules"`
}

// Rule is one of them.
type Rule struct {
	ID      string `json:"id"`
	Action  string `json:"action"`
	Filters int    `json:"filters"`
}

// AddRules asks for a set of rules: the text of policy documents with one policy.
type AddRules struct {
	// File is the name for messages.
	File       string `json:"file"`
	Text       string `json:"text"`
	Persistent bool   `json:"persistent"`
}

// DeleteRules asks for the end of a set of rules.
type DeleteRules struct {
	Name string `json:"name"`
}

// Failure is one failed negotiation.
type Failure struct {
	Time   time.Time `json:"time"`
	Remote string    `json:"remote"`
	Peer   string    `json:"peer,omitempty"`
	Rule   string    `json:"rule,omitempty"`
	Child  bool      `json:"child"` // a Child SA failed, not the IKE SA
	Reason string    `json:"reason"`
	Fault  string    `json:"fault"`
	Detail string    `json:"detail,omitempty"`
}

// Associations answers "sas".
type Associations struct {
	IKE      []IKE   `json:"ike"`
	Children []Child `json:"children"`
	Soft     []Soft  `json:"soft"`
}

// IKE is one IKE SA.
type IKE struct {
	SPI         string    `json:"spi"`
	PeerSPI     string    `json:"peerSPI"`
	Initiator   bool      `json:"initiator"`
	State       string    `json:"state"`
	Peer        string    `json:"peer,omitempty"`
	Auth        string    `json:"auth,omitempty"`
	Local       string    `json:"local"`
	Remote      string    `json:"remote"`
	Suite       string    `json:"suite"`
	Encap       bool      `json:"encap"`
	Established time.Time `json:"established,omitzero"`
	Rekey       time.Time `json:"rekey,omitzero"`
}

// Child is one pair of ESP SAs.
type Child struct {
	In              string    `json:"in"`
	Out             string    `json:"out"`
	Current         bool      `json:"current"`
	Rule            string    `json:"rule,omitempty"`
	DefaultResponse bool      `json:"defaultResponse"`
	Peer            string    `json:"peer"`
	Mode            string    `json:"mode"`
	Suite           string    `json:"suite"`
	Local           string    `json:"local"`
	Remote          string    `json:"remote"`
	LocalTS         []string  `json:"localTS"`
	RemoteTS        []string  `json:"remoteTS"`
	Installed       time.Time `json:"installed"`
	InPackets       uint64    `json:"inPackets"`
	InOctets        uint64    `json:"inOctets"`
	OutPackets      uint64    `json:"outPackets"`
	OutOctets       uint64    `json:"outOctets"`
	ReplayDropped   uint64    `json:"replayDropped"`
	AuthFailed      uint64    `json:"authFailed"`
	// PathMTU is how long a packet may be on the way to the peer, in octets, all headers included, and PathMTUSource where
	// that comes from: "link" (the first one; nothing shorter was found), "icmp" (a router told it) or "probe" (longer ones got
	// lost); 0 and "unknown" where the kernel seals, which keeps it to itself.
	PathMTU       int    `json:"pathMTU"`
	PathMTUSource string `json:"pathMTUSource"`
}

// Soft is clear traffic granted to a silent peer.
type Soft struct {
	Rule    string    `json:"rule"`
	Local   string    `json:"local"`
	Remote  string    `json:"remote"`
	Expires time.Time `json:"expires"`
}

// Filter is one filter in force, in the order of weight.
type Filter struct {
	Weight    string `json:"weight"`
	Direction string `json:"direction"`
	Filter    string `json:"filter"`
	Action    string `json:"action"`
	Rule      string `json:"rule,omitempty"`
	Exempt    string `json:"exempt,omitempty"`
	// Packets counts what the filter described since the daemon began, whatever became of it; a filter with several addresses
	// or directions has one counter. What comes out of SAs is not asked about.
	Packets uint64 `json:"packets"`
}

// Rekey asks for a rekey of a Child SA by its inbound SPI, or of the IKE SA alone. Both are hexadecimal.
type Rekey struct {
	IKE   string `json:"ike,omitempty"`
	Child string `json:"child,omitempty"`
}
