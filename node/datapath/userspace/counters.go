package userspace

import "fmt"

// counter is one of the stable counters of Status. Names follow the Windows IPsec statistics where those have one.
type counter uint8

// The counters.
const (
	counterBadSPI          counter = iota // ESP packets of no SA that is installed
	counterReplay                         // seen before, or left of the window
	counterNotAuthentic                   // integrity check failed
	counterMalformed                      // ESP or inner packet that cannot be
	counterWrongSA                        // inner packet that is not what its SA was negotiated for
	counterSecurePolicy                   // inner packet that the policy blocks
	counterExpired                        // for an SA beyond its hard limit
	counterConfidentialOut                // octets sealed
	counterConfidentialIn                 // octets opened
	counterTransportOut                   // of these in transport mode
	counterTransportIn
	counterTunnelOut
	counterTunnelIn
	counterBlocked        // outbound, dropped in the TUN because the policy says so
	counterQueueFull      // outbound, first packets of a flow beyond the bounds of the queue
	counterWaitedTooLong  // outbound, nobody answered for the flow
	counterRefused        // outbound, the negotiation failed
	counterReinjected     // outbound, let go in clear
	counterReinjectFailed // outbound, was to go in clear, but the kernel refused it
	counterTooBig         // outbound, sender was told the path MTU
	counterSealFailed
	counterSendFailed
	counterTUNFailed // inbound, the kernel did not take it
	counterUnparsed  // outbound, not an IP packet
	counterNotReady  // outbound, before the first policy
	counterAcquire   // negotiations asked for
	counterKeyAdditions
	counterKeyDeletions
	counterRekeys
	counterEventsLost
	counterTUNReads       // packets and super-packets that the kernel gave
	counterPacketsSealed  // packets that went into ESP
	counterDatagrams      // datagrams, and groups of them that the kernel joined
	counterPacketsOpened  // packets that came out of ESP
	counterSends          // calls that gave ESP to the kernel
	counterProbes         // of the path MTU
	counterTooBigReceived // messages of routers about ESP packets that do not fit
	counters
)

var counterNames = [counters]string{
	"bad_spi_packets", "packets_replayed", "packets_not_authenticated", "packets_malformed", "packets_wrong_sa",
	"packets_blocked_in_sa", "packets_expired_sa", "confidential_bytes_sent", "confidential_bytes_received",
	"transport_bytes_sent", "transport_bytes_received", "tunnel_bytes_sent", "tunnel_bytes_received",
	"packets_blocked_out", "packets_queue_full", "packets_waited_too_long", "packets_refused", "packets_reinjected",
	"packets_reinject_failed", "packets_too_big", "packets_seal_failed", "packets_send_failed", "packets_tun_failed",
	"packets_unparsed", "packets_not_ready", "total_acquire", "key_additions", "key_deletions", "rekeys", "events_lost",
	"tun_reads", "packets_sealed", "esp_datagrams", "packets_opened", "esp_sends", "path_mtu_probes", "path_mtu_messages",
}

// String returns the name in Status.Counters.
func (c counter) String() string {
	if int(c) < len(counterNames) {
		return counterNames[c]
	}
	return fmt.Sprintf("counter(%d)", uint8(c))
}

// CounterNames are the names in Status.Counters, without those of the rules.
func CounterNames() []string {
	names := append([]string(nil), counterNames[:]...)
	return append(names, "packets_waiting", "flows_waiting", "active_security_associations", "soft_associations", "active_tunnels")
}
