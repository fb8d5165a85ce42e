package nftable

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch tells when another program changes our nftables table: "nft flush ruleset" would let everything pass.
type Watch struct {
	conn    *netlink.Conn
	table   string
	own     uint32 // port of the netlink socket whose changes are our own
	changed chan struct{}
}

// Watch watches the table for changes of others, in the network namespace of the calling thread. Run reads until Close.
func (t *Table) Watch() (*Watch, error) {
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
	return &Watch{conn: conn, table: t.name, own: t.port, changed: make(chan struct{}, 1)}, nil
}

// Run reads notifications until Close.
func (w *Watch) Run() {
	defer close(w.changed)
	for {
		messages, err := w.conn.Receive()
		if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADF) {
			return
		}
		// With any other error (ENOBUFS) notifications were lost, and one of them may have been about us.
		if err != nil || slices.ContainsFunc(messages, w.concerns) {
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// concerns reports whether a notification is about a change of our table by somebody else.
func (w *Watch) concerns(m netlink.Message) bool {
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

// repairPause keeps two programs from fighting over the table as fast as they can.
const repairPause = 50 * time.Millisecond

// Repair calls restore after each change until Run has ended, and logs what became of it; restored is false where there was
// nothing to be restored.
func (w *Watch) Repair(log hclog.Logger, restore func() (restored bool, err error)) {
	for range w.Changed() {
		switch restored, err := restore(); {
		case err != nil:
			log.Error("nftables table was changed by another program and cannot be restored", "table", w.table, "error", err)
		case restored:
			log.Warn("nftables table was changed by another program and is restored", "table", w.table)
		}
		<-time.After(repairPause)
	}
}

// Changed has a value after each change, and is closed when Run has ended.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Close ends the watch.
func (w *Watch) Close() error { return w.conn.Close() }
