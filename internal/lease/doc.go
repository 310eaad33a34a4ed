// Package lease decides when connected mounts may believe what they remember, and
// when a writer must wait for others: close-to-open between mounts. It is a state
// machine without goroutines, clock or I/O: Step takes an event and returns
// effects, Poll the next message to a peer. A simulation replays it exactly.
//
// # Two halves
//
// Every pair of mounts has the same relation twice, once in each direction. The
// holder reads what the granter writes. The granter promises: before a change of
// mine in a directory that you watch is reported as done, you have applied it and
// your kernel has forgotten what it replaces. The promise binds for a term, which
// the holder begins (Join) and every message renews.
//
// A message carries the sender's clock; the granter says it back. So the holder
// knows a moment at which the granter had not yet heard it, and counts its lease
// from there, for Config.Term. The granter counts Config.Patience, which is longer,
// from when it heard. So, whatever the delays, the holder knows that it is cut off
// before the granter stops waiting. Clocks need not agree; they may differ in
// speed by less than the ratio of the two.
//
// # Beginning a term
//
// The granter answers Join with all that it has applied so far. The holder first
// applies that too, while its kernel may go on believing what it believes (it is
// not connected yet). Then nothing is given to the kernel to keep, the kernel is
// made to forget everything, and the granter is asked to count the holder as
// watching (Live). When both are done and the holder has applied what the granter
// had written until then, the term is on: what the kernel is given from here on
// is covered by the promise.
//
// # Watching
//
// A holder watches a directory from its first use: Ask, answered with the length
// of the granter's log at a moment after the granter began to count it. Until that much
// is applied the holder's answer waits. A directory that the holder's own
// incarnation made needs no asking, since nobody can write in it who has not learnt
// of it from the holder's log: the granter sees by the directory's maker that
// the holder watches it, if it was made after Mark. So whoever unpacks an archive
// into a fresh directory never waits for a slow link.
//
// What has not been used for a while, or is too much, is given back: the kernel
// forgets it first, then the granter is told (Drop). Raising Mark gives back what was
// never asked for; what of that is still in use is asked for in the same message.
//
// # Waiting
//
// A write waits until every holder that watches has said that it applied it, or
// holds nothing any more: because it said so, or because it must have noticed by
// now. If it answers but does not apply within Config.Limit, its term is revoked, and
// another put off; Config.Patience later it is not waited for, whatever it says. A read
// waits likewise; a holder that gets no answer within Config.Limit leaves. Nobody waits
// with a lock that the other side's answer needs, so crossing operations cannot
// hold each other up.
//
// # Links that end
//
// A link that ends, or that another takes the place of, ends the holder's term, but the mounts may
// be connected again in a moment. The granter keeps its promise until the holder joins anew or must have
// noticed; so the holder first has its kernel forget what it was given in that term, and
// says nothing before. Until the next term is on, or Config.Patience is over, its reads wait
// and the kernel is given nothing to keep. If the granter held nothing any more itself, it
// has left, and nobody waits for it.
package lease
