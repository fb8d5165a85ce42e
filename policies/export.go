package policies

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Export writes every document as YAML that Decode reads back to the same documents, by kind in the order of Kinds.
func (d Documents) Export() []byte {
	var out []byte
	for i, doc := range d.All() {
		if i > 0 {
			out = append(out, "---\n"...)
		}
		out = AppendYAML(out, doc)
	}
	return out
}

// AppendYAML appends one document as YAML, without a separator.
func AppendYAML(dst []byte, doc Document) []byte {
	w := &writer{out: dst}
	w.text("apiVersion", APIVersion)
	w.text("kind", string(doc.Kind()))
	doc.write(w)
	return w.out
}

// writer writes block style YAML. A list element opens with a dash in the place of the last two columns of indentation.
type writer struct {
	out    []byte
	indent int
	dash   bool
}

// line writes one line at the present indentation.
func (w *writer) line(s string) {
	pad := strings.Repeat("  ", w.indent)
	if w.dash {
		pad = pad[:len(pad)-2] + "- "
		w.dash = false
	}
	w.out = append(append(append(w.out, pad...), s...), '\n')
}

// text writes a field; an empty one is left away.
func (w *writer) text(name, value string) {
	if value != "" {
		w.line(name + ": " + quoted(value))
	}
}

// plain writes a field whose value is no free text.
func (w *writer) plain(name string, value any) { w.line(fmt.Sprintf("%s: %v", name, value)) }

// flag writes a truth value that is not the default.
func (w *writer) flag(name string, value, otherwise bool) {
	if value != otherwise {
		w.plain(name, value)
	}
}

// duration writes a duration that is not the default.
func (w *writer) duration(name string, d time.Duration) {
	if d != 0 {
		w.plain(name, d)
	}
}

// block writes a field that is a mapping.
func (w *writer) block(name string, fields func()) {
	w.line(name + ":")
	w.indent++
	fields()
	w.indent--
}

// list writes a field that is a list of mappings; an empty one is left away.
func list[T any](w *writer, name string, values []T, each func(v T)) {
	if len(values) == 0 {
		return
	}
	w.line(name + ":")
	w.indent += 2
	for _, v := range values {
		w.dash = true
		each(v)
	}
	w.indent -= 2
}

// scalars writes a field that is a list of texts.
func scalars[T any](w *writer, name string, values []T, format func(v T) string) {
	list(w, name, values, func(v T) { w.line(format(v)) })
}

func (w *writer) level(l proposal.Level) {
	if l != 0 {
		w.plain("level", l)
	}
}

func (w *writer) meta(m Meta) {
	w.text("name", m.Name)
	w.text("description", m.Description)
}

// quoted writes a text so that every reader of YAML takes it for that text: plain where that is beyond doubt, else in
// double quotes.
func quoted(s string) string {
	if plainText(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	opened := unclosed(s)
	for _, r := range s {
		switch {
		case opened && (r == '[' || r == '{'):
			fmt.Fprintf(&b, `\x%02x`, r)
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == unicode.ReplacementChar || unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// unclosed reports whether a text has brackets that do not close again, or that are within others. The reader counts brackets
// before it knows what is text (scan), and would take those of many texts together for a document that nests without end.
func unclosed(s string) bool {
	depth := 0
	for _, r := range s {
		switch r {
		case '[', '{':
			if depth++; depth > 1 {
				return true
			}
		case ']', '}':
			depth = max(0, depth-1)
		}
	}
	return depth > 0
}

// reserved words are read as something else than text by one or another version of YAML.
var reserved = map[string]bool{
	"true": true, "false": true, "yes": true, "no": true, "on": true, "off": true, "y": true, "n": true, "null": true, "nan": true, "inf": true,
}

func plainText(s string) bool {
	if s == "" || reserved[strings.ToLower(s)] || !letter(rune(s[0])) || s[len(s)-1] == ' ' {
		return false
	}
	for _, r := range s {
		if !letter(r) && (r < '0' || r > '9') && !strings.ContainsRune(" ()/._+=-", r) {
			return false
		}
	}
	return true
}

func letter(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' }

func portText(p uint16) string { return strconv.Itoa(int(p)) }

func dnText(dn directory.DN) string { return quoted(dn.String()) }

func offerText(o Offer) string { return quoted(o.String()) }

func (p Policy) write(w *writer) {
	w.meta(p.Meta)
	list(w, "rules", p.Rules, func(r Rule) { r.write(w) })
	if d := p.DefaultResponse; d.Active || len(d.Offers) > 0 || d.Level != 0 || len(d.Authentication) > 0 || d.PFS || d.Idle != 0 {
		w.block("defaultResponse", func() {
			w.plain("active", d.Active)
			w.level(d.Level)
			scalars(w, "offers", d.Offers, offerText)
			list(w, "authentication", d.Authentication, w.auth)
			w.flag("pfs", d.PFS, false)
			w.duration("idle", d.Idle)
		})
	}
	if k := p.KeyExchange; !k.IsZero() {
		w.block("keyExchange", func() {
			scalars(w, "offers", k.Offers, func(o proposal.IKE) string { return quoted(o.String()) })
			w.duration("lifetime", k.Lifetime)
			if k.Childless != spd.ChildlessAccept {
				w.plain("childless", k.Childless)
			}
			if k.ChildLimit != 0 {
				w.plain("childLimit", k.ChildLimit)
			}
			if k.Revocation != spd.RevocationKnown {
				w.plain("revocation", k.Revocation)
			}
			w.duration("reauthentication", k.Reauthentication)
			w.flag("announceAuthentication", k.AnnounceAuthentication, false)
			if k.Mobility != spd.MobilityAllow {
				w.plain("mobility", k.Mobility)
			}
			if k.Transcript != spd.TranscriptPrefer {
				w.plain("transcript", k.Transcript)
			}
		})
	}
	if e := p.Exemptions; !e.isZero() {
		w.block("exemptions", func() {
			if e.Level != exemptIKE {
				w.plain("level", e.Level)
			}
			w.flag("multicast", e.Multicast, false)
			w.flag("broadcast", e.Broadcast, false)
			w.flag("kerberos", e.Kerberos, false)
			w.flag("rsvp", e.RSVP, false)
			w.flag("icmp", e.ICMP, false)
			scalars(w, "breakGlassTCP", e.BreakGlassTCP, portText)
		})
	}
}

func (r Rule) write(w *writer) {
	w.meta(r.Meta)
	w.flag("active", !r.Disabled, true)
	w.text("filterList", r.FilterList)
	w.text("filterAction", r.FilterAction)
	list(w, "authentication", r.Authentication, w.auth)
	if r.Interfaces != spd.InterfacesAll {
		w.plain("interfaces", r.Interfaces)
	}
	scalars(w, "peerGroups", r.PeerGroups, dnText)
	if r.Tunnel.Remote.IsValid() {
		w.block("tunnel", func() {
			w.text("remote", r.Tunnel.Remote.String())
			if r.Tunnel.Local.IsValid() {
				w.text("local", r.Tunnel.Local.String())
			}
		})
	}
}

func (w *writer) auth(a spd.Auth) {
	w.plain("method", a.Method)
	w.text("ca", a.CA)
	w.text("secretRef", a.Secret)
	w.text("localID", a.LocalID)
	w.text("remoteID", a.RemoteID)
	w.text("ppkRef", a.PPK)
	w.flag("ppkOptional", a.PPKOptional, false)
	w.flag("accountMapping", a.AccountMapping, false)
	w.flag("excludeCAName", a.ExcludeCAName, false)
}

func (l FilterList) write(w *writer) {
	w.meta(l.Meta)
	if len(l.Filters) == 0 {
		w.line("filters: []")
	}
	list(w, "filters", l.Filters, func(f Filter) {
		w.meta(f.Meta)
		w.text("source", f.Source.String())
		w.text("destination", f.Destination.String())
		if f.Protocol != 0 {
			w.plain("protocol", protocolText(f.Protocol))
		}
		if !f.SourcePort.Any() {
			w.plain("sourcePort", f.SourcePort)
		}
		if !f.DestinationPort.Any() {
			w.plain("destinationPort", f.DestinationPort)
		}
		w.flag("mirrored", f.Mirrored, true)
	})
}

func (a FilterAction) write(w *writer) {
	w.meta(a.Meta)
	w.plain("action", a.Action)
	w.flag("inpass", a.Inpass, false)
	switch f := a.Fallback; {
	case f.Delay != 0 || f.TTL != 0:
		w.block("fallback", func() {
			w.plain("mode", f.Mode)
			w.duration("delay", f.Delay)
			w.duration("ttl", f.TTL)
		})
	case f.Mode != spd.FallbackNone:
		w.plain("fallback", f.Mode)
	}
	w.level(a.Level)
	scalars(w, "offers", a.Offers, offerText)
	w.flag("pfs", a.PFS, false)
	if a.Associations > 0 {
		w.plain("associations", a.Associations)
	}
}

func (l Link) write(w *writer) {
	w.meta(l.Meta)
	w.text("policy", l.Policy)
	w.text("container", l.Container.String())
	w.plain("order", l.Order)
	w.flag("enforced", l.Enforced, false)
	w.flag("disabled", l.Disabled, false)
	if len(l.Apply) > 0 || len(l.Deny) > 0 {
		w.block("groups", func() {
			scalars(w, "apply", l.Apply, dnText)
			scalars(w, "deny", l.Deny, dnText)
		})
	}
}

func (c Container) write(w *writer) {
	w.meta(c.Meta)
	w.text("container", c.DN.String())
	w.flag("blockInheritance", c.BlockInheritance, false)
}

func (s Settings) write(w *writer) {
	w.meta(s.Meta)
	scalars(w, "breakGlassTCP", s.BreakGlassTCP, portText)
	if s.BlockApply != BlockErrors {
		w.text("blockApply", s.BlockApply.String())
	}
}
