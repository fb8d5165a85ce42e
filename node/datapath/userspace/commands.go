package userspace

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/waiting"
	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// command is what the methods of the backend ask of the packet thread, which runs it between two batches. The set is
// closed.
type command interface {
	run(*loop) error
}

// request is a command with the place for its answer.
type request struct {
	command command
	answer  chan error
}

// prepare makes a set count together with the one in force: until commit or abort the stricter of the two decides.
type prepare struct{ set spd.Set }

// commit puts the prepared set into force.
type commit struct{}

// abort forgets the prepared set.
type abort struct{}

type installIn struct {
	child sa.Child
	in    *esp.Inbound
	mtu   int // of the device
}

type installOut struct {
	spi sa.SPI
	out *esp.Outbound
}

type switchOut struct{ spi sa.SPI }

type remove struct{ spi sa.SPI }

type fallback struct {
	key   softKey
	until time.Time
}

type endFallback struct{ key softKey }

type refuse struct{ flow ike.Flow }

type status struct{ into *datapath.Status }

type stop struct{}

// softKey names a soft association.
type softKey struct {
	rule          string
	local, remote netip.Addr
}

func (c prepare) run(l *loop) error {
	l.prepared = &c.set
	l.forget()
	return nil
}

func (c commit) run(l *loop) error {
	if l.prepared == nil {
		return errors.New("put a policy into force: none was prepared")
	}
	l.set, l.prepared, l.ready = *l.prepared, nil, true
	l.forget()
	clear(l.sources)
	for key := range l.soft {
		if r, ok := l.set.Rule(key.rule); !ok || r.Action.Fallback.Mode == spd.FallbackNone {
			delete(l.soft, key)
		}
	}
	for key := range l.secured {
		if r, ok := l.set.Rule(key.rule); !ok || r.Action.Fallback.Mode != spd.FallbackDiscover {
			delete(l.secured, key)
		}
	}
	// What waits for a negotiation that the new policy still wants goes on waiting.
	l.resume(func(q *queue) bool {
		p := q.Packet
		flow, err := l.flow(l.set.LookupByAddress(spd.Out, p), p)
		return err != nil || waiting.Key(flow) != waiting.Key(q.Flow)
	})
	return nil
}

func (c abort) run(l *loop) error {
	l.prepared = nil
	l.forget()
	return nil
}

func (c installIn) run(l *loop) error {
	if _, ok := l.sadb.children[c.child.In.SPI]; ok {
		return fmt.Errorf("install inbound SA %s: the SPI is in use", c.child.In.SPI)
	}
	a := &association{
		child: c.child, in: c.in, path: newPathMTU(c.mtu, c.child.Local.Addr().Is6()), remote: c.child.Remote, installed: l.now,
	}
	if old, ok := l.sadb.children[c.child.ReplacesIn]; ok && old.path.device == c.mtu && old.child.Remote == c.child.Remote {
		a.path, a.probing = old.path, old.probing // the way is the same one
	}
	a.setPath()
	l.sadb.children[c.child.In.SPI] = a
	return nil
}

func (c installOut) run(l *loop) error {
	a, ok := l.sadb.children[c.spi]
	if !ok {
		return fmt.Errorf("install outbound SA %s: its inbound SA %s is not installed", c.out.SPI(), c.spi)
	}
	a.out, a.forks, a.sealers = c.out, nil, 0
	l.forget()
	a.setPath()
	l.counters[counterKeyAdditions]++
	if a.child.ReplacesIn != 0 {
		l.counters[counterRekeys]++
	}
	return nil
}

func (c switchOut) run(l *loop) error {
	a, ok := l.sadb.children[c.spi]
	if !ok || a.out == nil {
		return fmt.Errorf("switch to the SA with inbound SPI %s: its outbound half is not installed", c.spi)
	}
	l.sadb.activate(a)
	l.forget()
	if key, ok := hosts(a.child); ok {
		soft := softKey(key)
		delete(l.soft, soft)
		if r, ok := l.set.Rule(key.rule); ok && r.Action.Fallback.Mode == spd.FallbackDiscover {
			l.secured[soft] = true
		}
	}
	l.resume(a.serves)
	return nil
}

func (c remove) run(l *loop) error {
	a, ok := l.sadb.children[c.spi]
	if !ok {
		return nil
	}
	l.sadb.deactivate(a)
	delete(l.sadb.children, c.spi)
	a.dead = true
	l.counters[counterKeyDeletions]++
	l.forget()
	if !a.switched {
		// What waited for this one, since IKE saw it coming, would wait in vain: it asks again.
		l.resume(a.serves)
	}
	return nil
}

// serves reports whether a queue may have waited for this SA.
func (a *association) serves(q *queue) bool {
	return q.Rule == a.child.Rule && a.coversOut(&q.Packet)
}

func (c fallback) run(l *loop) error {
	if l.secured[c.key] {
		return fmt.Errorf("let %s and %s talk in clear: the flow was protected before, and rule %q never goes back",
			c.key.local, c.key.remote, c.key.rule)
	}
	l.soft[c.key] = c.until
	l.resume(func(q *queue) bool {
		return q.Rule == c.key.rule && q.Local == c.key.local && q.Remote == c.key.remote
	})
	return nil
}

func (c endFallback) run(l *loop) error {
	delete(l.soft, c.key)
	return nil
}

func (c refuse) run(l *loop) error {
	l.counters[counterRefused] += uint64(len(l.waiting.Refuse(c.flow, l.now)))
	return nil
}

func (c status) run(l *loop) error {
	s := c.into
	missed := false
	if err := (lost{&missed}).run(l); err != nil {
		return err
	}
	if missed {
		s.Notes = append(s.Notes, "The TUN device was deleted: what the policy wants protected is dropped until it is made again.")
	}
	for _, a := range l.sadb.children {
		s.Children = append(s.Children, a.status())
	}
	for key, until := range l.soft {
		s.Soft = append(s.Soft, datapath.SoftStatus{Rule: key.rule, Local: key.local, Remote: key.remote, Expires: until})
	}
	for _, thread := range l.loops {
		for name, n := range thread.counters {
			s.Counters[counter(name).String()] += n
		}
	}
	flows, packets := l.waiting.Count()
	s.Counters["packets_waiting"], s.Counters["flows_waiting"] = uint64(packets), uint64(flows)
	s.Counters["active_security_associations"] = uint64(len(l.sadb.children))
	s.Counters["soft_associations"] = uint64(len(l.soft))
	for _, a := range l.sadb.children {
		if a.child.Mode == sa.Tunnel {
			s.Counters["active_tunnels"]++
		}
	}
	return nil
}

func (c stop) run(l *loop) error {
	l.stopping = true
	return nil
}
