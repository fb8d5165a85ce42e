// Package trace keeps what the IKE engine tells of its messages and decisions, and shows it to who watches: a bounded
// history for each peer, filters, and the stable text of a line.
//
// Its invariant: what is kept is bounded whatever peers send, strangers never displace what is known of peers, and a line
// holds no secret; without readers a line costs no formatting. It leaves what is told to node/ike/ikev2 and
// node/ike/engine, and how readers reach it to node/localapi.
package trace
