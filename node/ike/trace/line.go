package trace

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// Record is what happened, and when.
type Record struct {
	*ike.Trace
	Time time.Time
	seq  uint64
}

// Line is a Record as it is read: all text. Its JSON form and its String are stable.
type Line struct {
	Time   time.Time `json:"time"`
	IKE    string    `json:"ike,omitempty"` // own SPI, 16 hexadecimal digits
	Remote string    `json:"remote,omitempty"`
	Peer   string    `json:"peer,omitempty"` // authenticated identity
	Kind   string    `json:"kind"`           // see ike.TraceKind; "lost" tells of lines that this reader missed

	// Of a message:
	Exchange  string   `json:"exchange,omitempty"`
	Response  bool     `json:"response,omitempty"`
	MessageID *uint32  `json:"messageID,omitempty"`
	Payloads  []string `json:"payloads,omitempty"`

	// Of a failure or of a dropped message:
	Reason string `json:"reason,omitempty"`
	Fault  string `json:"fault,omitempty"`
	Rule   string `json:"rule,omitempty"`

	Text string `json:"text"`
}

// Line puts the text of a record together.
func (r Record) Line() Line {
	l := Line{Time: r.Time.UTC(), Peer: printable(r.Peer), Kind: r.Kind.String(), Reason: string(r.Reason), Rule: r.Rule}
	if r.IKE != 0 {
		l.IKE = fmt.Sprintf("%016x", uint64(r.IKE))
	}
	switch {
	case !r.Remote.Addr().IsValid():
	case r.Remote.Port() == 0:
		l.Remote = r.Remote.Addr().String()
	default:
		l.Remote = r.Remote.String()
	}
	if r.Kind == ike.TraceFailed {
		l.Fault = r.Fault.String()
	}
	if s, ok := r.Text.(wire.Summary); ok {
		id := s.MessageID
		l.Exchange, l.Response, l.MessageID, l.Payloads = s.Exchange.String(), s.Response, &id, s.Payloads()
	}
	if r.Text != nil {
		l.Text = printable(r.Text.String())
	}
	return l
}

// String is the line in one piece: time, SPI, remote address, peer, kind, then reason and fault where there are, then
// the text. What is missing is "-", so that the fields can be counted; only the text, and a quoted peer, has spaces.
func (l Line) String() string {
	field := func(text string) string {
		switch {
		case text == "":
			return "-"
		case strings.ContainsRune(text, ' '):
			return strconv.Quote(text)
		}
		return text
	}
	parts := []string{l.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), field(l.IKE), field(l.Remote), field(l.Peer), l.Kind}
	if l.Reason != "" {
		parts = append(parts, l.Reason)
	}
	if l.Fault != "" {
		parts = append(parts, "fault="+l.Fault)
	}
	if l.Text != "" {
		parts = append(parts, l.Text)
	}
	return strings.Join(parts, " ")
}

// printable escapes what could make one line look like two, or a terminal do something: parts of it come from peers.
func printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0 {
		return text
	}
	quoted := strconv.QuoteToASCII(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
