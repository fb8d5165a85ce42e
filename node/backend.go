package node

import (
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/datapath/xfrm"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// The values of Config.Datapath.
const (
	datapathAuto      = "auto"
	datapathUserspace = "userspace"
	datapathXFRM      = "xfrm"
)

// moving is what moves packets: the backend, the sockets that fit it, and why it was chosen.
type moving struct {
	datapath.Backend
	sockets *transport.Sockets
	reason  string
}

// openMoving chooses the backend and opens it. The kernel's ESP is chosen where there is one; where it was asked for by
// name and there is none, that is an error.
func openMoving(config Config, log hclog.Logger) (m moving, err error) {
	kernel := false
	switch config.Datapath {
	case datapathUserspace:
		m.reason = "ESP is in user space: the configuration says so, or nothing else."
	case datapathXFRM:
		if err := xfrm.Probe(); err != nil {
			return m, fmt.Errorf("leave ESP to the kernel, as the configuration says (datapath: %s): %w", datapathXFRM, err)
		}
		kernel, m.reason = true, "ESP is the kernel's: the configuration says so."
	default:
		err := xfrm.Probe()
		if kernel = err == nil; kernel {
			m.reason = "ESP is the kernel's: it has ESP with extended sequence numbers."
		} else {
			m.reason = fmt.Sprintf("ESP is in user space: %v.", err)
		}
	}
	log.Info("datapath is chosen", "reason", m.reason)
	m.sockets, err = transport.Listen(transport.Config{Mark: userspace.MarkOwn, KernelESP: kernel})
	if err != nil {
		return m, fmt.Errorf("open the sockets of IKE and ESP: %w", err)
	}
	log = log.Named("datapath")
	if kernel {
		m.Backend, err = xfrm.New(xfrm.Config{Logger: log})
	} else {
		if err := xfrm.Sweep(); err != nil {
			log.Debug("no SAs of an earlier process can be looked for in the kernel", "error", err)
		}
		m.Backend, err = userspace.New(userspace.Config{Name: config.Device, Sockets: m.sockets, Logger: log})
	}
	if err != nil {
		return m, errors.Join(err, m.sockets.Close())
	}
	return m, nil
}

// Status is that of the backend, with the reason why it was chosen.
func (m moving) Status() datapath.Status {
	s := m.Backend.Status()
	s.Notes = append([]string{m.reason}, s.Notes...)
	return s
}
