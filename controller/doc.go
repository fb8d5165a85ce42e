// Package controller is the controller as a whole: its configuration, and the wiring of its parts from top to bottom.
//
// Load validates a Config, opens the state and the CA and prepares every part; Run lets them work until the context
// ends, and stops them in the reverse order: the nodes are told first, the state is closed last.
//
// Invariant: nothing is served before the state was read back, and a part that stops by itself stops the controller:
// half a controller would look healthy. It decides nothing about policy, machines or certificates; its subpackages do.
package controller
