package pki

// MachineURI is the identity URI of a machine: what journals and indexes call it, whatever DNS name it has at present.
func MachineURI(trustDomain string, machine UUID) string {
	return identityURI(trustDomain, roleMachine, machine.String())
}

// ControllersURI is what the identity URIs of all controllers of a fleet begin with.
func ControllersURI(trustDomain string) string { return identityURI(trustDomain, roleController, "") }

// AdministratorsURI is what the identity URIs of all administrators of a fleet begin with.
func AdministratorsURI(trustDomain string) string {
	return identityURI(trustDomain, roleAdministrator, "")
}

// ParseMachineURI reads the identity URI of a machine. It reports false for the URI of anything else.
func ParseMachineURI(uri string) (trustDomain string, machine UUID, ok bool) {
	domain, role, name, err := splitURI(uri)
	if err != nil || role != roleMachine {
		return "", UUID{}, false
	}
	machine, err = ParseUUID(name)
	if err != nil || identityURI(domain, roleMachine, machine.String()) != uri {
		return "", UUID{}, false
	}
	return domain, machine, true
}
