package audit

import (
	"fmt"
	"time"
)

// Kind is one of the events. Numbers are those of Windows (security log since Vista).
type Kind uint16

// The kinds.
const (
	SoftAssociation       Kind = 541 // clear traffic was granted to a silent peer
	DoSProtection         Kind = 4646
	MainEstablished       Kind = 4650 // without certificate
	MainEstablishedByCert Kind = 4651
	MainFailedByCert      Kind = 4652 // for a reason that lies in a certificate
	MainFailed            Kind = 4653
	QuickFailed           Kind = 4654
	MainEnded             Kind = 4655
	ServiceStarted        Kind = 4709
	ServiceStopped        Kind = 4710
	InvalidMainPacket     Kind = 4976
	InvalidQuickPacket    Kind = 4977
	Deleted               Kind = 5049 // by command
	QuickEstablished      Kind = 5451
	QuickEnded            Kind = 5452
	NotRunning            Kind = 5453 // an association was asked for while IKE stops
)

// Description is what is documented of a Kind.
type Description struct {
	Kind    Kind
	Name    string
	Outcome string // "success", "failure" or "" where neither fits
	Meaning string
}

// Descriptions are all kinds, in the order of their numbers. The list is made anew for each call.
func Descriptions() []Description {
	return []Description{
		{SoftAssociation, "soft-association", "success", "clear traffic was granted for a while, as the rule allows, because the peer was silent"},
		{DoSProtection, "dos-protection", "", "first messages are answered with a cookie because very many come, or no longer; detail says which"},
		{MainEstablished, "main-mode-established", "success", "an IKE SA is up, authenticated by a preshared key; replaces names the one that it rekeys"},
		{MainEstablishedByCert, "main-mode-established-by-certificate", "success", "an IKE SA is up, authenticated by certificates"},
		{MainFailedByCert, "main-mode-failed-certificate", "failure", "an IKE SA did not come up, for a reason that lies in a certificate"},
		{MainFailed, "main-mode-failed", "failure", "an IKE SA did not come up"},
		{QuickFailed, "quick-mode-failed", "failure", "a Child SA could not be made"},
		{MainEnded, "main-mode-ended", "", "an IKE SA ended; reason tells why"},
		{ServiceStarted, "service-started", "success", "IKE answers from now on"},
		{ServiceStopped, "service-stopped", "", "IKE ends in order"},
		{InvalidMainPacket, "invalid-packet-main-mode", "failure", "a message came that is not valid, for no IKE SA or for one that is not up"},
		{InvalidQuickPacket, "invalid-packet-quick-mode", "failure", "a message came that is not valid, for an IKE SA that is up"},
		{Deleted, "deleted", "success", "an association was deleted by command"},
		{QuickEstablished, "quick-mode-established", "success", "a Child SA is up, with its selectors and SPIs"},
		{QuickEnded, "quick-mode-ended", "", "a Child SA ended; reason tells why"},
		{NotRunning, "keying-not-running", "failure", "traffic asked for an association while IKE stops"},
	}
}

func describe(k Kind) Description {
	for _, d := range Descriptions() {
		if d.Kind == k {
			return d
		}
	}
	return Description{Kind: k, Name: fmt.Sprintf("event-%d", k)}
}

// Event is one line of the audit.
type Event struct {
	Time    time.Time `json:"time"`
	ID      Kind      `json:"id"`
	Name    string    `json:"event"`
	Outcome string    `json:"outcome,omitempty"`
	// Count is how many such events this line stands for. It is 1 for a line of its own; a line for several has only
	// what they have in common, Since is the time of the first of them.
	Count uint64    `json:"count"`
	Since time.Time `json:"since,omitzero"`

	IKE      string   `json:"ike,omitempty"` // own SPI
	Replaces string   `json:"replaces,omitempty"`
	In       string   `json:"spiIn,omitempty"` // of a Child SA
	Out      string   `json:"spiOut,omitempty"`
	Local    string   `json:"local,omitempty"` // outer addresses
	Remote   string   `json:"remote,omitempty"`
	Peer     string   `json:"peer,omitempty"` // authenticated identity
	Auth     string   `json:"authentication,omitempty"`
	Suite    string   `json:"suite,omitempty"`
	Rule     string   `json:"rule,omitempty"`
	Mode     string   `json:"mode,omitempty"` // transport or tunnel
	LocalTS  []string `json:"localTS,omitempty"`
	RemoteTS []string `json:"remoteTS,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Fault    string   `json:"fault,omitempty"` // local, peer or network
	Detail   string   `json:"detail,omitempty"`
}

func newEvent(now time.Time, k Kind) Event {
	d := describe(k)
	return Event{Time: now.UTC(), ID: k, Name: d.Name, Outcome: d.Outcome, Count: 1}
}
