// Package lock decides who holds which lock on a file when several mounts are
// connected. It is a state machine without goroutines, clock or I/O: Step takes an
// event and returns effects, Poll the next message to a peer. A simulation replays
// it exactly.
//
// # Consent
//
// Every mount keeps the locks of its own processes, and only those. To set one it
// needs the consent of every connected mount: a peer that consents sets no lock on
// the file itself until it has that mount's consent in turn, and says which locks its
// processes hold there, or in place of very many small ranges fewer and longer ones. So whoever has everybody's consent knows all locks on the
// file, or more than there are, and decides alone. Consent stays until it is asked
// back: a file that is locked on one mount only costs one question, and then nothing.
// To unlock takes no consent.
//
// Who asks says since when it has been wanting, on a Lamport clock. Whoever wants the same file
// and has wanted it for longer answers when it has decided; everybody else answers at once. So two
// mounts never wait for each other, and everybody's turn comes
// (Ricart and Agrawala; consent that stays is Roucairol's and Carvalho's). It holds between
// each two mounts by itself: there is no manager to lose, and mounts need not all be
// connected with each other.
//
// A request that is held up by a lock waits without asking. Who knows that others wait says
// when it unlocks, and then they ask anew.
//
// # What was written
//
// Before a mount consents, it has what its processes wrote into the file published (Publish);
// consent carries how long its log is then, and so does the word that something was
// unlocked. A request is done when that much is applied here, and the kernel has dropped what it had of the file
// before (Drop): what others wrote under their locks is seen under this one. Its lock is set before that; if it is given up meanwhile, its owner holds
// what it held before.
//
// # Sessions
//
// Consent is worth something for as long as the one who has it keeps in touch. A
// message carries its sender's clock; the peer says it back. So a mount knows a moment
// at which the peer had not yet heard it, and counts Config.Term from there; the peer counts
// Config.Patience, which is longer, from when it heard. Whatever the delays, a mount that is cut
// off knows that it has nobody's consent any more before they stop minding it. Then both sides
// lock for themselves, and each other's locks count for nothing until they meet again. When
// nothing is locked, nothing is said.
//
// A link that ends takes all consent with it, but not the peer: that may be there again in a moment, on another
// link, with all its locks. So nothing is locked without it before Patience is over, or it is heard and asked anew.
package lock
