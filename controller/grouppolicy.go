package controller

import (
	"github.com/bailiwick-net/bailiwick/controller/admin"
	"github.com/bailiwick-net/bailiwick/controller/grouppolicy"
)

// openGroupPolicy prepares the reading of Group Policy for the sources that ask for it. Nothing is sent yet.
func (c *Controller) openGroupPolicy(service *admin.Server) {
	for _, d := range c.config.directories.Sources {
		if d.LDAP == nil || !d.NativeAssignment && !d.NativeSites {
			continue
		}
		c.groupPolicy = append(c.groupPolicy, grouppolicy.New(grouppolicy.Config{
			Source: d.Name, Base: d.Base, Assignment: d.NativeAssignment, Open: grouppolicy.FromLDAP(*d.LDAP), Replace: service.Replace,
			Now: c.config.Now, Log: c.log.Named("group-policy"),
		}))
	}
}

// groupPolicyStatus tells what is read of Group Policy.
func (c *Controller) groupPolicyStatus() []grouppolicy.Status {
	var out []grouppolicy.Status
	for _, f := range c.groupPolicy {
		out = append(out, f.Status())
	}
	return out
}

// readGroupPolicy has it read now.
func (c *Controller) readGroupPolicy() {
	for _, f := range c.groupPolicy {
		f.Wake()
	}
}
