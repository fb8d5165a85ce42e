package directory

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// A Digest names the content of a Snapshot: equal content, equal digest, whatever the order it was read in.
type Digest [32]byte

// String returns 64 hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 hex digits, enough for a log line.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// MarshalText returns String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// digestContent works the digests out: of the chunks that have none yet, then of all chunks. Every text and every list has
// its length before it.
func (s *Snapshot) digestContent() {
	var w digestWriter
	groups := digestTable(&w, s.groups.byUUID, func(w *digestWriter, g *groupEntry) { w.buf = append(w.buf, g.sum[:]...) })
	s.groupsDigest = groups
	containers := digestTable(&w, s.containers.byUUID, func(w *digestWriter, c *Container) {
		w.entry(c.UUID, c.DN)
		w.number(uint64(c.Kind))
	})
	machines := digestTable(&w, s.machines.byUUID, func(w *digestWriter, m *machineEntry) { w.machine(m.Machine) })
	w.text(s.base.text)
	w.buf = append(append(append(w.buf, containers[:]...), machines[:]...), groups[:]...)
	s.digest = w.sum()
}

func digestTable[T any](w *digestWriter, t table[T], write func(*digestWriter, T)) Digest {
	for _, c := range t.chunks {
		if c.sum != (Digest{}) {
			continue
		}
		w.number(uint64(len(c.items)))
		for _, item := range c.items {
			write(w, item)
		}
		c.sum = w.sum()
	}
	w.number(uint64(len(t.chunks)))
	for _, c := range t.chunks {
		w.buf = append(w.buf, c.sum[:]...)
	}
	return w.sum()
}

func newGroupEntry(g Group) *groupEntry {
	var w digestWriter
	w.entry(g.UUID, g.DN)
	w.text(g.Name)
	w.number(uint64(g.RID))
	w.number(uint64(len(g.Members)))
	for _, m := range g.Members {
		w.text(m.key)
	}
	return &groupEntry{g, w.sum()}
}

// digestWriter gathers what is hashed together.
type digestWriter struct{ buf []byte }

func (w *digestWriter) machine(m Machine) {
	w.entry(m.UUID, m.DN)
	w.text(m.Name)
	w.text(m.DNSName)
	w.number(uint64(len(m.Addresses)))
	for _, a := range m.Addresses {
		w.text(a.String())
	}
	if m.Disabled {
		w.number(1)
	} else {
		w.number(0)
	}
	w.number(uint64(m.PrimaryGroup))
}

func (w *digestWriter) entry(u UUID, dn DN) {
	w.buf = append(w.buf, u[:]...)
	w.text(dn.text)
}

func (w *digestWriter) text(s string) {
	w.number(uint64(len(s)))
	w.buf = append(w.buf, s...)
}

func (w *digestWriter) number(n uint64) { w.buf = binary.AppendUvarint(w.buf, n) }

// sum hashes what was gathered and begins anew.
func (w *digestWriter) sum() Digest {
	d := Digest(sha256.Sum256(w.buf))
	w.buf = w.buf[:0]
	return d
}
