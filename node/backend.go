package node

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/custody"
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

// chooseKernel decides whether ESP is the kernel's, and says why: where the kernel has ESP, unless the configuration says
// otherwise. probe reports what the kernel lacks. Where the kernel's ESP was asked for by name and is none, that is an error.
func chooseKernel(configured string, probe func() error) (kernel bool, reason string, err error) {
	if configured == datapathUserspace {
		return false, "ESP is in user space: the configuration says so (datapath: userspace).", nil
	}
	missing := probe()
	switch {
	case configured == datapathXFRM && missing != nil:
		return false, "", fmt.Errorf("leave ESP to the kernel, as the configuration says (datapath: xfrm): %w; remove the setting to have ESP in user space", missing)
	case configured == datapathXFRM:
		return true, "ESP is the kernel's: the configuration says so (datapath: xfrm).", nil
	case missing != nil:
		return false, fmt.Sprintf("ESP is in user space: %v.", missing), nil
	}
	return true, "ESP is the kernel's: it has all that is needed (datapath: auto).", nil
}

// usualQueues is how many packet threads there are at most where the configuration does not say.
const usualQueues = 8

// queuesOf is how many packet threads there are.
func queuesOf(config Config, kernel bool) int {
	switch {
	case kernel:
		return 1 // of the sockets for IKE
	case config.Queues == 0:
		// The other half of the processors is for the kernel's part of the same packets, and for who makes them: a thread
		// that takes it from them costs more than it brings.
		return min(max(1, runtime.GOMAXPROCS(0)/2), usualQueues)
	}
	return config.Queues
}

// openMoving chooses the backend and opens it.
func openMoving(config Config, held *custody.Held, log hclog.Logger) (m moving, err error) {
	var owner *os.File
	if held != nil {
		owner = held.Owner
	}
	kernel, reason, err := chooseKernel(config.Datapath, xfrm.Probe)
	if err != nil {
		return m, err
	}
	m.reason = reason
	log.Info("datapath is chosen", "reason", m.reason)
	m.sockets, err = transport.Listen(transport.Config{Mark: userspace.MarkOwn, KernelESP: kernel, Queues: queuesOf(config, kernel)})
	if err != nil {
		return m, fmt.Errorf("open the sockets of IKE and ESP: %w", err)
	}
	log = log.Named("datapath")
	if kernel {
		m.Backend, err = xfrm.New(xfrm.Config{Owner: owner, Logger: log, Offload: config.HardwareOffload})
	} else {
		if config.HardwareOffload {
			m.reason += " Hardware offload is asked for, and has no effect on ESP in user space."
		}
		if err := xfrm.Sweep(); err != nil {
			log.Debug("no SAs of an earlier process can be looked for in the kernel", "error", err)
		}
		m.Backend, err = userspace.New(userspace.Config{Name: config.Device, Owner: owner, Sockets: m.sockets, Logger: log})
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
