package casstore

import "errors"

var (
	// ErrNotFound says that the store does not hold the chunk.
	ErrNotFound = errors.New("casstore: chunk not found")
	// ErrDamaged says that what the disk returned is not the chunk. The
	// store no longer counts it as held, so that it can be put again.
	ErrDamaged = errors.New("casstore: chunk damaged")
	// ErrMismatch says that the bytes given to Put do not have the ID given.
	ErrMismatch = errors.New("casstore: bytes do not match the chunk ID")
	// ErrSize says that a chunk is empty or longer than MaxChunk.
	ErrSize = errors.New("casstore: impossible chunk size")
	// ErrWhole says that a part of a chunk can't be read without the rest.
	ErrWhole = errors.New("casstore: the chunk must be read whole")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("casstore: store closed")
	// ErrInUse says that another process has the store open.
	ErrInUse = errors.New("casstore: store in use")
	// ErrFailed says that an earlier flush failed. What it should have made
	// durable may be lost on a power cut, so nothing more is accepted until the
	// store is opened again, which verifies what is there.
	ErrFailed = errors.New("casstore: an earlier flush failed")
	// ErrIndex says that the index is damaged where it would say whether and where the store holds the chunk. The chunk can be
	// put again; the next Open makes the index anew.
	ErrIndex = errors.New("casstore: index damaged; the next start makes it anew")
	// ErrVersion says that a file was written by a newer version.
	ErrVersion = errors.New("casstore: format of a newer version")
)
