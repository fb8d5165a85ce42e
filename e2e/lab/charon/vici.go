package charon

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// The packet types of vici, the Versatile IKE Control Interface. Each packet has its length in four octets before it.
const (
	viciRequest       = 0
	viciResponse      = 1
	viciUnknown       = 2
	viciRegister      = 3
	viciConfirm       = 5
	viciUnknownEvent  = 6
	viciEvent         = 7
	viciMaxPacket     = 512 << 10
	viciMaxNesting    = 16
	elementSection    = 1
	elementSectionEnd = 2
	elementValue      = 3
	elementList       = 4
	elementItem       = 5
	elementListEnd    = 6
)

// errVici says that the daemon sent what is not vici.
var errVici = errors.New("malformed vici message")

// message is one section of a vici message; its fields keep their order in names.
type message struct {
	names    []string
	values   map[string]string
	lists    map[string][]string
	sections map[string]message
}

func newMessage() message {
	return message{values: map[string]string{}, lists: map[string][]string{}, sections: map[string]message{}}
}

// setting is one field of a request; requests are flat.
type setting struct{ key, value string }

func appendSettings(b []byte, settings []setting) []byte {
	for _, s := range settings {
		b = append(b, elementValue, byte(len(s.key)))
		b = append(b, s.key...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(s.value)))
		b = append(b, s.value...)
	}
	return b
}

// parseSection reads fields until the end of the section. It returns what follows.
func parseSection(b []byte, depth int) (message, []byte, error) {
	m := newMessage()
	if depth > viciMaxNesting {
		return m, nil, errVici
	}
	for len(b) > 0 {
		element := b[0]
		b = b[1:]
		if element == elementSectionEnd {
			if depth == 0 {
				return m, nil, errVici
			}
			return m, b, nil
		}
		name, rest, err := cut(b, 1)
		if err != nil {
			return m, nil, err
		}
		b = rest
		m.names = append(m.names, name)
		switch element {
		case elementSection:
			if m.sections[name], b, err = parseSection(b, depth+1); err != nil {
				return m, nil, err
			}
		case elementValue:
			if m.values[name], b, err = cut(b, 2); err != nil {
				return m, nil, err
			}
		case elementList:
			if m.lists[name], b, err = parseList(b); err != nil {
				return m, nil, err
			}
		default:
			return m, nil, errVici
		}
	}
	if depth > 0 {
		return m, nil, errVici
	}
	return m, nil, nil
}

func parseList(b []byte) (items []string, rest []byte, err error) {
	for len(b) > 0 {
		element := b[0]
		b = b[1:]
		switch element {
		case elementListEnd:
			return items, b, nil
		case elementItem:
			var item string
			if item, b, err = cut(b, 2); err != nil {
				return nil, nil, err
			}
			items = append(items, item)
		default:
			return nil, nil, errVici
		}
	}
	return nil, nil, errVici
}

// cut reads a string whose length stands before it in one or two octets.
func cut(b []byte, lengthSize int) (string, []byte, error) {
	if len(b) < lengthSize {
		return "", nil, errVici
	}
	n := int(b[0])
	if lengthSize == 2 {
		n = int(binary.BigEndian.Uint16(b))
	}
	b = b[lengthSize:]
	if len(b) < n {
		return "", nil, errVici
	}
	return string(b[:n]), b[n:], nil
}

// session is one connection to the daemon.
type session struct {
	conn net.Conn
	in   *bufio.Reader
}

func (d *Daemon) dial(ctx context.Context) (*session, error) {
	conn, err := d.machine.dial(ctx, d.socket())
	if err != nil {
		return nil, fmt.Errorf("reach charon on host %s: %w", d.machine.name(), err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return &session{conn, bufio.NewReader(conn)}, nil
}

func (s *session) write(kind byte, name string, settings []setting) error {
	body := append([]byte{kind, byte(len(name))}, name...)
	body = appendSettings(body, settings)
	packet := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	_, err := s.conn.Write(append(packet, body...))
	return err
}

func (s *session) read() (kind byte, body []byte, err error) {
	var length [4]byte
	if _, err := io.ReadFull(s.in, length[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > viciMaxPacket {
		return 0, nil, errVici
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(s.in, body); err != nil {
		return 0, nil, err
	}
	return body[0], body[1:], nil
}

// call runs a command. A command that the daemon refused is an error with what it says.
func (d *Daemon) call(ctx context.Context, command string, settings []setting) (message, error) {
	_, response, err := d.stream(ctx, command, "", settings)
	if err != nil {
		return response, fmt.Errorf("vici %s on host %s: %w", command, d.machine.name(), err)
	}
	return response, nil
}

// stream runs a command and collects the events of a name that come before its response.
func (d *Daemon) stream(ctx context.Context, command, event string, settings []setting) (events []message, response message, err error) {
	s, err := d.dial(ctx)
	if err != nil {
		return nil, response, err
	}
	defer s.conn.Close()
	if event != "" {
		if err := s.write(viciRegister, event, nil); err != nil {
			return nil, response, err
		}
		if kind, _, err := s.read(); err != nil || kind != viciConfirm {
			return nil, response, errors.Join(err, fmt.Errorf("event %s is not known (packet type %d)", event, kind))
		}
	}
	if err := s.write(viciRequest, command, settings); err != nil {
		return nil, response, err
	}
	for {
		kind, body, err := s.read()
		if err != nil {
			return events, response, err
		}
		switch kind {
		case viciEvent:
			if _, body, err = cut(body, 1); err != nil {
				return events, response, err
			}
			m, _, err := parseSection(body, 0)
			if err != nil {
				return events, response, err
			}
			events = append(events, m)
		case viciResponse:
			response, _, err := parseSection(body, 0)
			if err == nil && response.values["success"] == "no" {
				err = errors.New(response.values["errmsg"])
			}
			return events, response, err
		case viciUnknown, viciUnknownEvent:
			return events, response, errors.New("the daemon does not know the command")
		default:
			return events, response, errVici
		}
	}
}
