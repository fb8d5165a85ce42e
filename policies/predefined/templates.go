package predefined

import (
	_ "embed"
	"slices"
)

var (
	//go:embed templates/authentication-exemption.yaml
	authenticationExemption []byte
	//go:embed templates/domain-isolation.yaml
	domainIsolation []byte
	//go:embed templates/gateway-tunnel.yaml
	gatewayTunnel []byte
	//go:embed templates/security-levels.yaml
	securityLevels []byte
	//go:embed templates/server-isolation.yaml
	serverIsolation []byte
)

// Template is a file of documents to start from.
type Template struct {
	Name    string
	Summary string // one line
	Text    []byte // YAML with comments; applies as it is
}

// Templates lists the templates by name.
func Templates() []Template {
	return []Template{
		{"authentication-exemption", "machines that cannot do IPsec are talked with in clear", slices.Clone(authenticationExemption)},
		{"domain-isolation", "nobody but members of the domain can begin to talk with its machines", slices.Clone(domainIsolation)},
		{"gateway-tunnel", "two networks joined by a tunnel between their gateways", slices.Clone(gatewayTunnel)},
		{"security-levels", "filter actions for data of class low, medium and high", slices.Clone(securityLevels)},
		{"server-isolation", "a server talks with the machines of one group only", slices.Clone(serverIsolation)},
	}
}
