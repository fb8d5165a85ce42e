package node

import (
	"errors"
	"strings"
	"testing"
)

// TestKernelIsChosenWhereItCan asks for every setting on machines with and without ESP in the kernel.
func TestKernelIsChosenWhereItCan(t *testing.T) {
	lacks := errors.New("no ESP in the kernel for IPv4")
	for _, c := range []struct {
		configured string
		probe      error
		kernel     bool
		says       string
	}{
		{datapathAuto, nil, true, "it has all that is needed"},
		{datapathAuto, lacks, false, "in user space: no ESP in the kernel for IPv4"},
		{datapathUserspace, nil, false, "in user space: the configuration says so"},
		{datapathUserspace, lacks, false, "in user space: the configuration says so"},
		{datapathXFRM, nil, true, "the kernel's: the configuration says so"},
	} {
		kernel, reason, err := chooseKernel(c.configured, func() error { return c.probe })
		if err != nil || kernel != c.kernel || !strings.Contains(reason, c.says) {
			t.Errorf("datapath %q with a kernel that lacks %v: kernel %v, %q, %v; want %v and %q", c.configured, c.probe, kernel, reason, err, c.kernel, c.says)
		}
	}
	if kernel, _, err := chooseKernel(datapathXFRM, func() error { return lacks }); kernel || !errors.Is(err, lacks) {
		t.Errorf("the kernel's ESP where it has none: kernel %v, error %v, want the error of the probe", kernel, err)
	}
	config, err := Config{}.validated()
	if err != nil || config.Datapath != datapathAuto {
		t.Errorf("without a setting the datapath is %q (%v), want %q", config.Datapath, err, datapathAuto)
	}
}
