// Package statistics gives the figures of a node the names that administrators of Windows IPsec know: main mode is an IKE
// SA, quick mode a Child SA, and so on.
//
// Its invariant: every figure is in one table with its meaning, and none is made up; one that this implementation has no
// counterpart for is not in it. It leaves counting to node/ike/engine, node/ike/driver, node/transport and node/datapath.
package statistics

import (
	"fmt"
	"io"
	"strings"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// Sources is what the figures are taken from.
type Sources struct {
	IKE       engine.Snapshot
	Datapath  datapath.Status
	Transport transport.Stats
}

// Figure is one figure.
type Figure struct {
	Group   string `json:"group"` // "ike", "ipsec" or "drop"
	Name    string `json:"name"`
	Value   uint64 `json:"value"`
	Gauge   bool   `json:"gauge,omitempty"` // of this moment; else since the start of the daemon
	Meaning string `json:"meaning"`
}

// row is one figure of the table.
type row struct {
	group, name string
	gauge       bool
	meaning     string
	value       func(Sources) uint64
}

// ofIKE sums counters of the engine and its driver.
func ofIKE(names ...string) func(Sources) uint64 {
	return func(s Sources) uint64 { return sum(s.IKE.Counters, names) }
}

// ofDatapath sums counters of the datapath.
func ofDatapath(names ...string) func(Sources) uint64 {
	return func(s Sources) uint64 { return sum(s.Datapath.Counters, names) }
}

func sum(counters map[string]uint64, names []string) uint64 {
	n := uint64(0)
	for _, name := range names {
		n += counters[name]
	}
	return n
}

func countSAs(s Sources, keep func(engine.SA) bool) uint64 {
	n := uint64(0)
	for _, x := range s.IKE.SAs {
		if keep(x) {
			n++
		}
	}
	return n
}

// The groups of figures.
const (
	groupIKE   = "ike"
	groupIPsec = "ipsec"
	groupDrop  = "drop"
)

var table = []row{
	{groupIKE, "active_acquire", true, "flows that wait for an association", func(s Sources) uint64 { return uint64(len(s.IKE.Waiting)) }},
	{groupIKE, "active_receive", true, "received IKE messages that wait to be looked at", func(s Sources) uint64 { return s.Transport.IKEWaiting }},
	{groupIKE, "active_jobs", true, "computations under way: key exchanges, signatures, certificates", ofIKE("jobs")},
	{groupIKE, "total_acquire", false, "flows that asked for an association", ofIKE("acquire")},
	{groupIKE, "acquire_failures", false, "flows that were refused", ofIKE("acquire_failed")},
	{groupIKE, "receive_failures", false, "IKE messages lost because too many waited, and errors of the sockets", func(s Sources) uint64 {
		return s.Transport.IKEDropped + s.Transport.ReceiveErrors
	}},
	{groupIKE, "send_failures", false, "IKE messages that the kernel did not take", ofIKE("send_failed")},
	{groupIKE, "negotiation_failures", false, "main and quick modes that failed", ofIKE("ike_failed", "child_failed")},
	{groupIKE, "authentication_failures", false, "main modes that failed because one side did not accept the other's identity", ofIKE("authentication_failed")},
	{groupIKE, "invalid_cookies_received", false, "messages for an IKE SA that is not there", ofIKE("dropped_unknown_spi")},
	{groupIKE, "invalid_packets_received", false, "messages that could not be used: malformed, of another version, unprotected, not authentic, reflected, out of place",
		ofIKE("dropped_malformed", "dropped_version", "dropped_unprotected", "dropped_integrity", "dropped_unexpected", "dropped_reflected")},
	{groupIKE, "repeated_packets_received", false, "messages that were old, ahead of their time, or came while another was worked on", ofIKE("dropped_message_id", "dropped_busy")},
	{groupIKE, "cookies_sent", false, "first messages that were answered with a cookie because many negotiations were under way", ofIKE("cookies_sent")},
	{groupIKE, "half_open_refusals", false, "first messages that were dropped because too many negotiations were not finished", ofIKE("dropped_half_open_limit")},
	{groupIKE, "buffer_refusals", false, "parts of messages that were dropped because peers that are not authenticated take too much memory", ofIKE("dropped_buffer_limit")},
	{groupIKE, "total_get_spi", false, "SPIs drawn for Child SAs", ofIKE("get_spi")},
	{groupIKE, "key_additions", false, "outbound halves of Child SAs given to the datapath", ofIKE("key_additions")},
	{groupIKE, "key_addition_failures", false, "outbound halves that the datapath refused", ofIKE("key_addition_failed")},
	{groupIKE, "key_updates", false, "inbound halves of Child SAs given to the datapath", ofIKE("key_updates")},
	{groupIKE, "key_update_failures", false, "inbound halves that the datapath refused", ofIKE("key_update_failed")},
	{groupIKE, "isadb_list_size", true, "IKE SAs, established or not", func(s Sources) uint64 { return uint64(len(s.IKE.SAs)) }},
	{groupIKE, "connection_list_size", true, "established IKE SAs with an exchange under way", func(s Sources) uint64 {
		return countSAs(s, func(x engine.SA) bool { return x.Busy && !x.Established.IsZero() })
	}},
	{groupIKE, "active_main_modes", true, "established IKE SAs", func(s Sources) uint64 {
		return countSAs(s, func(x engine.SA) bool { return !x.Established.IsZero() })
	}},
	{groupIKE, "started_main_modes", false, "main modes that this side began", ofIKE("init_sent")},
	{groupIKE, "responder_main_modes", false, "main modes that peers began, and that this side took part in", ofIKE("ike_responder_started")},
	{groupIKE, "main_modes", false, "main modes that succeeded", ofIKE("ike_established")},
	{groupIKE, "main_mode_failures", false, "main modes that failed", ofIKE("ike_failed")},
	{groupIKE, "main_mode_rekeys", false, "rekeys of IKE SAs", ofIKE("ike_rekeyed")},
	{groupIKE, "quick_modes", false, "new Child SAs, rekeys not counted", ofIKE("child_established")},
	{groupIKE, "quick_mode_failures", false, "Child SAs that could not be made", ofIKE("child_failed")},
	{groupIKE, "quick_mode_rekeys", false, "rekeys of Child SAs", ofIKE("child_rekeyed")},
	{groupIKE, "soft_associations", false, "flows that were let go in clear because the peer was silent", ofIKE("fallback")},

	{groupIPsec, "active_security_associations", true, "Child SAs in the datapath", ofDatapath("active_security_associations")},
	{groupIPsec, "active_tunnels", true, "of these in tunnel mode", ofDatapath("active_tunnels")},
	{groupIPsec, "active_soft_associations", true, "flows that go in clear now because the peer is silent", ofDatapath("soft_associations")},
	{groupIPsec, "ipsec_key_additions", false, "outbound halves that were installed", ofDatapath("key_additions")},
	{groupIPsec, "ipsec_key_deletions", false, "Child SAs that were removed", ofDatapath("key_deletions")},
	{groupIPsec, "ipsec_rekeys", false, "outbound halves that replaced another", ofDatapath("rekeys")},
	{groupIPsec, "packets_with_replay_detection", false, "packets dropped because they had been seen before, or were too old to tell", ofDatapath("packets_replayed")},
	{groupIPsec, "confidential_bytes_sent", false, "octets that were protected by ESP", ofDatapath("confidential_bytes_sent")},
	{groupIPsec, "confidential_bytes_received", false, "octets that came protected by ESP", ofDatapath("confidential_bytes_received")},
	{groupIPsec, "transport_bytes_sent", false, "of these in transport mode", ofDatapath("transport_bytes_sent")},
	{groupIPsec, "transport_bytes_received", false, "of these in transport mode", ofDatapath("transport_bytes_received")},
	{groupIPsec, "bytes_sent_in_tunnels", false, "of these in tunnel mode", ofDatapath("tunnel_bytes_sent")},
	{groupIPsec, "bytes_received_in_tunnels", false, "of these in tunnel mode", ofDatapath("tunnel_bytes_received")},

	{groupDrop, "bad_spi_packets", false, "ESP packets of no association: it has expired, or somebody tries", ofDatapath("bad_spi_packets")},
	{groupDrop, "packets_not_decrypted", false, "ESP packets that are none, or hold no IP packet", ofDatapath("packets_malformed")},
	{groupDrop, "packets_not_authenticated", false, "ESP packets whose integrity check failed", ofDatapath("packets_not_authenticated")},
	{groupDrop, "clear_text_that_should_be_secured", false, "packets that came in clear where the policy wants security", ofDatapath("nft/clear-in")},
	{groupDrop, "sa_not_ready", false, "packets that waited for an association in vain", ofDatapath("packets_queue_full", "packets_waited_too_long", "packets_refused", "packets_not_ready")},
	{groupDrop, "wrong_sa", false, "packets that came through an association that was not negotiated for them", ofDatapath("packets_wrong_sa")},
	{groupDrop, "blocked_in_sa", false, "packets that came through an association and that the policy blocks", ofDatapath("packets_blocked_in_sa")},
	{groupDrop, "expired_sa", false, "packets for an association beyond its hard limit", ofDatapath("packets_expired_sa")},
}

// Figures are all figures, in the order of the table.
func Figures(s Sources) []Figure {
	figures := make([]Figure, len(table))
	for i, r := range table {
		figures[i] = Figure{Group: r.group, Name: r.name, Value: r.value(s), Gauge: r.gauge, Meaning: r.meaning}
	}
	return figures
}

// MetricName is the name of a figure for Prometheus.
func (f Figure) MetricName() string {
	name := "bailiwick_" + f.Group + "_" + strings.TrimPrefix(f.Name, f.Group+"_")
	if !f.Gauge {
		name += "_total"
	}
	return name
}

// WriteMetrics writes the figures in the text format of Prometheus, version 0.0.4.
func WriteMetrics(w io.Writer, figures []Figure) error {
	for _, f := range figures {
		kind := "counter"
		if f.Gauge {
			kind = "gauge"
		}
		if _, err := fmt.Fprintf(w, "# HELP %[1]s %[2]s\n# TYPE %[1]s %[3]s\n%[1]s %[4]d\n", f.MetricName(), f.Meaning, kind, f.Value); err != nil {
			return err
		}
	}
	return nil
}
