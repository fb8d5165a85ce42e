// Package settings is what an administrator writes about directories: one or several sources, how each is reached, what
// its entries mean, and how many machines a change may affect.
//
// Invariants: what Check returns can be opened; a mistake is told with its field, and with file, line and column when the
// text is at hand; no setting switches the guard against mass changes off.
//
// It leaves reading directories to directory/ldap and directory/ldif, and all other configuration to the controller.
package settings
