// Package accept holds the acceptance tests: the real binary, real mounts, real
// programs, two nodes on this machine. `make test` runs them small, `make
// accept` (FOREVER_ACCEPT=full) at the sizes that users meet, and prints
// each figure beside what it is compared with.
package accept
