package controller

import (
	"errors"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/directory"
)

// EnrollmentConfig says which machines get a certificate without a join token, and how long one that ended can be renewed.
type EnrollmentConfig struct {
	// Requests takes requests without a token; an administrator approves or denies each.
	Requests bool `yaml:"requests"`
	// RequestLifetime is how long a request waits; default 7 days, 1 min to 30 days.
	RequestLifetime time.Duration `yaml:"requestLifetime"`
	// AutoApprove are the machines whose requests are approved without asking anybody, as long as they hold no certificate.
	AutoApprove []MachinesConfig `yaml:"autoApprove"`
	// Gateways are the machines that others reach networks through: their certificates say so to peers that want to see it,
	// from the next one on that each of them gets.
	Gateways []MachinesConfig `yaml:"gateways"`
	// RenewalGrace is how long after its end a certificate can still be renewed, for the same key; default 14 days, 1 s to
	// 90 days.
	RenewalGrace time.Duration `yaml:"renewalGrace"`
	// Kerberos takes machines that prove their account in a realm; nil takes none.
	Kerberos *KerberosConfig `yaml:"kerberos"`
}

// MachinesConfig names machines by exactly one of Container and Group, which are DNs.
type MachinesConfig struct {
	Container string `yaml:"container"`
	Group     string `yaml:"group"`
}

// maxRenewalGrace bounds EnrollmentConfig.RenewalGrace.
const maxRenewalGrace = 90 * 24 * time.Hour

func (v *validated) checkEnrollment() error {
	c := v.Enrollment
	var errs []error
	if c.RequestLifetime != 0 && (c.RequestLifetime < time.Minute || c.RequestLifetime > 30*24*time.Hour) {
		errs = append(errs, fmt.Errorf("enrollment.requestLifetime %v, wanted 1m to 720h", c.RequestLifetime))
	}
	if c.RenewalGrace != 0 && (c.RenewalGrace < time.Second || c.RenewalGrace > maxRenewalGrace) {
		errs = append(errs, fmt.Errorf("enrollment.renewalGrace %v, wanted 1s to 2160h", c.RenewalGrace))
	}
	if len(c.AutoApprove) > 0 && !c.Requests {
		errs = append(errs, errors.New("enrollment.autoApprove has no effect without enrollment.requests: true"))
	}
	v.rules = enrollment.Rules{Accept: c.Requests, Lifetime: c.RequestLifetime}
	for _, list := range []struct {
		name  string
		named []MachinesConfig
		rules *[]enrollment.Rule
	}{{"autoApprove", c.AutoApprove, &v.rules.Auto}, {"gateways", c.Gateways, &v.gateways}} {
		for i, m := range list.named {
			rule, err := m.rule()
			if err != nil {
				errs = append(errs, fmt.Errorf("enrollment.%s, entry %d: %w", list.name, i+1, err))
			}
			*list.rules = append(*list.rules, rule)
		}
	}
	return errors.Join(append(errs, v.checkKerberos())...)
}

func (m MachinesConfig) rule() (rule enrollment.Rule, err error) {
	switch {
	case (m.Container == "") == (m.Group == ""):
		err = errors.New("wanted exactly one of container and group")
	case m.Container != "":
		rule.Container, err = directory.ParseDN(m.Container)
	default:
		rule.Group, err = directory.ParseDN(m.Group)
	}
	return rule, err
}
