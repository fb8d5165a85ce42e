package userspace

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// repairPause keeps two programs from fighting over the table as fast as they can.
const repairPause = 50 * time.Millisecond

// tableWatch tells when another program changes our nftables table: "nft flush ruleset" would let everything pass.
type tableWatch struct {
	conn    *netlink.Conn
	table   string
	own     uint32 // port of the netlink socket whose changes are our own
	changed chan struct{}
}

func watchTable(table string, own uint32) (*tableWatch, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open the netlink socket that watches nftables: %w", err)
	}
	if err := widen(conn); err != nil {
		return nil, errors.Join(fmt.Errorf("watch nftables: %w", err), conn.Close())
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, errors.Join(fmt.Errorf("watch nftables: %w", err), conn.Close())
	}
	return &tableWatch{conn: conn, table: table, own: own, changed: make(chan struct{}, 1)}, nil
}

// run reads notifications until close.
func (w *tableWatch) run() {
	defer close(w.changed)
	for {
		messages, err := w.conn.Receive()
		// With ENOBUFS notifications were lost, and one of them may have been about us.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		for _, m := range messages {
			if w.concerns(m) {
				err = unix.ENOBUFS
			}
		}
		if err != nil {
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// concerns reports whether a notification is about a change of our table by somebody else.
func (w *tableWatch) concerns(m netlink.Message) bool {
	const header = 4 // struct nfgenmsg
	if m.Header.PID == w.own || uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < header ||
		uint16(m.Header.Type)&0xff == unix.NFT_MSG_NEWGEN || m.Data[0] != unix.NFPROTO_INET {
		return false
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[header:])
	if err != nil {
		return true
	}
	for attributes.Next() {
		// The name of the table is attribute 1 of every message: NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE...
		if attributes.Type() == unix.NFTA_TABLE_NAME {
			return strings.TrimRight(attributes.String(), "\x00") == w.table
		}
	}
	return false
}

func (w *tableWatch) close() error { return w.conn.Close() }

// flows asks the packet thread for the associations in clear and the flows that must not have one.
type flows struct {
	soft    map[softKey]time.Time
	secured map[softKey]bool
}

func (c flows) run(l *loop) error {
	for key, until := range l.soft {
		c.soft[key] = until
	}
	for key := range l.secured {
		c.secured[key] = true
	}
	return nil
}

// repair runs until the watch is closed, and puts back what others change.
func (b *backend) repair() {
	defer close(b.repaired)
	for range b.watch.changed {
		err := b.restore()
		switch {
		case errors.Is(err, errClosed):
			return
		case err != nil:
			b.cfg.Logger.Error("nftables table was changed by another program and cannot be restored", "table", b.cfg.NFTable, "error", err)
		default:
			b.cfg.Logger.Warn("nftables table was changed by another program and is restored", "table", b.cfg.NFTable)
		}
		<-time.After(repairPause)
	}
}

func (b *backend) restore() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	if b.mu.fresh {
		return nil // nothing of ours is in force yet
	}
	var entries []dynamic
	for e := range b.mu.dynamic {
		entries = append(entries, e)
	}
	if err := b.table.replace(steering.Compile(b.mu.set, b.params), false, entries); err != nil {
		return err
	}
	state := flows{soft: map[softKey]time.Time{}, secured: map[softKey]bool{}}
	if err := b.do(state); err != nil {
		return err
	}
	var errs []error
	for key := range state.secured {
		errs = append(errs, b.table.add(steering.SecuredSet(key.rule, key.local.Is6()), pair{key.local, key.remote}, 0))
	}
	for key, until := range state.soft {
		if left := time.Until(until); left > 0 {
			for _, d := range []spd.Direction{spd.In, spd.Out} {
				errs = append(errs, b.table.add(steering.SoftSet(key.rule, d, key.local.Is6()), pair{key.local, key.remote}, left))
			}
		}
	}
	return errors.Join(errs...)
}
