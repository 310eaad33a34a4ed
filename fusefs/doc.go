// Package fusefs shows a volume to the kernel through FUSE.
//
// It speaks bazil.org/fuse's connection with a dispatch of its own: a few
// goroutines read requests and answer them in place, because handing a request to
// another goroutine costs more than most requests do. Before one begins what may
// wait (for the network, the disk or room in memory), it sees to it that another
// goroutine is left reading.
//
// # What the kernel keeps
//
// Names, missing names, attributes and pages are cached by the kernel for as long
// as it likes. Changes made through the mount are known to it, but of some it takes in an older
// answer that it was about to get; see inflight.go. Changes from
// elsewhere reach it through Server.Notifier. A reply that was being worked out
// while such a change came in is sent with no validity, so that nothing old stays.
//
// Notifications are written by goroutines that are never inside a request, but for those of inflight.go, which
// take no lock and concern what the program that waits for the answer holds in the kernel.
// One sends only those for which the kernel takes no lock that a
// request may hold: attributes, and the epoch of all names. Another sends names on kernels before 6.16,
// which may wait for the request that holds their directory. Pages are dropped by one for each
// file, since that may wait for reads under way; see pages. How the kernel learns how long a file is, sizes.go tells.
//
// # Locks
//
// Order: notes.replying, then any of the others, which are leaves.
package fusefs
