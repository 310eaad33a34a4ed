package replica

import (
	"bytes"
	"encoding/binary"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

// Envelope is one op batch with what others need to place and check it. The
// batch inside is sealed; the replica cannot read it.
type Envelope struct {
	Author AuthorID
	Device DeviceID
	Seq    uint64  // from 1 within the author's log
	Prev   Hash    // of the envelope before; zero at Seq 1
	Epoch  EpochID // whose key opens Sealed
	Heads  []Hash  // what the device knew of the control log
	// Sealed is valid as long as the Envelope and must not be changed.
	Sealed []byte
}

// BatchAAD is what a sealed batch shall be bound to, so that nobody can pass it
// off at another place of the logs.
func BatchAAD(volume VolumeID, author AuthorID, seq uint64) []byte {
	aad := append([]byte("forever batch 1\x00"), volume[:]...)
	aad = append(aad, author[:]...)
	return binary.BigEndian.AppendUint64(aad, seq)
}

func (e *Envelope) marshal(volume VolumeID) ([]byte, error) {
	p := &replicapb.Envelope{
		Volume: volume[:],
		Author: e.Author[:],
		Device: e.Device[:],
		Seq:    e.Seq,
		Epoch:  e.Epoch[:],
		Heads:  hashList(e.Heads),
		Sealed: e.Sealed,
	}
	if e.Seq > 1 {
		p.Prev = e.Prev[:]
	}
	return proto.Marshal(p)
}

// parseEnvelope checks what an envelope shows by itself, except its signature.
func parseEnvelope(volume VolumeID, body []byte) (Envelope, error) {
	var p replicapb.Envelope
	if err := transport.Unmarshal(body, &p); err != nil {
		return Envelope{}, invalid("envelope: %v", err)
	}
	if !bytes.Equal(p.Volume, volume[:]) {
		return Envelope{}, invalid("envelope of another volume")
	}
	e := Envelope{Seq: p.Seq, Sealed: p.Sealed}
	var err error
	if e.Author, err = fixed16(p.Author, "author"); err != nil {
		return Envelope{}, err
	}
	if e.Device, err = fixed32[DeviceID](p.Device, "device"); err != nil {
		return Envelope{}, err
	}
	if e.Epoch, err = fixed16(p.Epoch, "epoch"); err != nil {
		return Envelope{}, err
	}
	if e.Heads, err = parseHashes(p.Heads); err != nil {
		return Envelope{}, err
	}
	if e.Seq > 1 {
		if e.Prev, err = fixed32[Hash](p.Prev, "previous hash"); err != nil {
			return Envelope{}, err
		}
	}
	return e, e.check(len(p.Prev))
}

func (e *Envelope) check(prevLen int) error {
	switch {
	case e.Seq == 0, e.Seq == 1 && prevLen != 0:
		return invalid("envelope at place %d", e.Seq)
	case !MadeBy(e.Author, e.Device):
		return invalid("envelope of an author that is not its device's")
	case len(e.Heads) == 0:
		return invalid("envelope without control heads")
	case len(e.Sealed) == 0 || len(e.Sealed) > maxSealed:
		return invalid("sealed batch of %d bytes", len(e.Sealed))
	}
	return nil
}
