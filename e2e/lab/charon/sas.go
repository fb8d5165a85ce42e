package charon

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// SA is an IKE SA as the daemon tells it.
type SA struct {
	Connection                 string
	State                      string // "ESTABLISHED"
	Initiator                  bool
	InitiatorSPI, ResponderSPI string // hexadecimal
	LocalID, RemoteID          string
	LocalPort, RemotePort      string
	Encryption, KeySize        string   // "AES_GCM_16", "256"
	PRF, Group                 string   // "PRF_HMAC_SHA2_384", "ECP_384"
	Additional                 []string // key exchanges beside Group: "ML_KEM_768"
	Children                   []ChildSA
}

// ChildSA is a pair of ESP SAs.
type ChildSA struct {
	Name, State         string // State is "INSTALLED" in normal operation
	Mode                string // "TUNNEL"
	In, Out             string // SPIs, hexadecimal
	Encapsulated        bool
	Encryption, KeySize string
	Integrity           string
	Group               string // of its own key exchange, "" without one
	Additional          []string
	InBytes, OutBytes   uint64
	LocalTS, RemoteTS   []string
}

// String names the SA as logs do.
func (s SA) String() string {
	return fmt.Sprintf("%s %s_i %s_r %s", s.Connection, s.InitiatorSPI, s.ResponderSPI, s.State)
}

// SAs lists the IKE SAs.
func (d *Daemon) SAs(ctx context.Context) ([]SA, error) {
	events, _, err := d.stream(ctx, "list-sas", "list-sa", nil)
	if err != nil {
		return nil, fmt.Errorf("list the associations of charon on host %s: %w", d.machine.name(), err)
	}
	var out []SA
	for _, e := range events {
		for _, name := range e.names {
			out = append(out, newSA(name, e.sections[name]))
		}
	}
	return out, nil
}

func newSA(name string, m message) SA {
	s := SA{
		Connection: name, State: m.values["state"], Initiator: m.values["initiator"] == "yes",
		InitiatorSPI: m.values["initiator-spi"], ResponderSPI: m.values["responder-spi"],
		LocalID: m.values["local-id"], RemoteID: m.values["remote-id"],
		LocalPort: m.values["local-port"], RemotePort: m.values["remote-port"],
		Encryption: m.values["encr-alg"], KeySize: m.values["encr-keysize"],
		PRF: m.values["prf-alg"], Group: m.values["dh-group"], Additional: additional(m),
	}
	children := m.sections["child-sas"]
	for _, child := range children.names {
		c := children.sections[child]
		s.Children = append(s.Children, ChildSA{
			Name: c.values["name"], State: c.values["state"], Mode: c.values["mode"],
			In: c.values["spi-in"], Out: c.values["spi-out"], Encapsulated: c.values["encap"] == "yes",
			Encryption: c.values["encr-alg"], KeySize: c.values["encr-keysize"], Integrity: c.values["integ-alg"],
			Group: c.values["dh-group"], Additional: additional(c),
			InBytes: octets(c.values["bytes-in"]), OutBytes: octets(c.values["bytes-out"]),
			LocalTS: c.lists["local-ts"], RemoteTS: c.lists["remote-ts"],
		})
	}
	return s
}

// additional are the methods of the additional key exchanges, in their order.
func additional(m message) []string {
	var list []string
	for i := 1; i <= 7; i++ {
		if method := m.values[fmt.Sprintf("ake%d", i)]; method != "" {
			list = append(list, method)
		}
	}
	return list
}

func octets(text string) uint64 {
	// The daemon leaves the field away before the first packet.
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// Initiate negotiates a child of a connection and waits until it stands or has failed.
func (d *Daemon) Initiate(ctx context.Context, child string) error {
	_, err := d.call(ctx, "initiate", []setting{{"child", child}, {"timeout", milliseconds(ctx)}})
	return err
}

// TerminateIKE deletes the IKE SAs of a connection and waits until they are gone.
func (d *Daemon) TerminateIKE(ctx context.Context, connection string) error {
	_, err := d.call(ctx, "terminate", []setting{{"ike", connection}, {"timeout", milliseconds(ctx)}})
	return err
}

// TerminateChild deletes the Child SAs of a name and waits until they are gone.
func (d *Daemon) TerminateChild(ctx context.Context, child string) error {
	_, err := d.call(ctx, "terminate", []setting{{"child", child}, {"timeout", milliseconds(ctx)}})
	return err
}

// RekeyIKE starts a rekey of the IKE SAs of a connection; it does not wait for it.
func (d *Daemon) RekeyIKE(ctx context.Context, connection string) error {
	_, err := d.call(ctx, "rekey", []setting{{"ike", connection}})
	return err
}

// RekeyChild starts a rekey of the Child SAs of a name; it does not wait for it.
func (d *Daemon) RekeyChild(ctx context.Context, child string) error {
	_, err := d.call(ctx, "rekey", []setting{{"child", child}})
	return err
}

// milliseconds is the time left, a little less than the deadline of the connection to the daemon.
func milliseconds(ctx context.Context) string {
	left := 30 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		left = max(time.Until(deadline)-200*time.Millisecond, 100*time.Millisecond)
	}
	return strconv.FormatInt(left.Milliseconds(), 10)
}
