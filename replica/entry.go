package replica

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/replica/replicapb"
)

// entry is one entry of the control log, well formed by itself. Whether it may
// be there is the log's to judge.
type entry struct {
	signed
	parents []Hash
	signer  DeviceID
	what    *replicapb.ControlEntry
	// height is 1 + the greatest of the parents; the log sets it. Where
	// entries know nothing of each other, the greater (height, hash) wins.
	height uint64
}

// beats reports whether e wins over o where both set the same thing.
func (e *entry) beats(o *entry) bool {
	if o == nil || e.height != o.height {
		return o == nil || e.height > o.height
	}
	return bytes.Compare(e.hash[:], o.hash[:]) > 0
}

// parseEntry checks everything that an entry shows by itself, its signature included.
func parseEntry(volume VolumeID, s signed) (*entry, error) {
	var p replicapb.ControlEntry
	if err := proto.Unmarshal(s.body, &p); err != nil {
		return nil, invalid("control entry: %v", err)
	}
	if !bytes.Equal(p.Volume, volume[:]) {
		return nil, invalid("control entry of another volume")
	}
	signer, err := fixed32[DeviceID](p.Signer, "signer")
	if err != nil {
		return nil, err
	}
	parents, err := parseHashes(p.Parents)
	if err != nil {
		return nil, err
	}
	if (len(parents) == 0) != (p.GetGenesis() != nil) {
		return nil, invalid("control entry with %d parents", len(parents))
	}
	if err := checkWhat(&p); err != nil {
		return nil, err
	}
	if !s.verify(controlDomain, signer) {
		return nil, invalid("control entry with a wrong signature")
	}
	return &entry{signed: s, parents: parents, signer: signer, what: &p}, nil
}

// parseHashes takes a strictly ascending list of at most maxHeads hashes.
func parseHashes(list [][]byte) ([]Hash, error) {
	if len(list) > maxHeads {
		return nil, invalid("%d heads", len(list))
	}
	out := make([]Hash, len(list))
	for i, b := range list {
		h, err := fixed32[Hash](b, "hash")
		if err != nil {
			return nil, err
		}
		if i > 0 && bytes.Compare(list[i-1], b) >= 0 {
			return nil, invalid("heads out of order")
		}
		out[i] = h
	}
	return out, nil
}

func hashList(hashes []Hash) [][]byte {
	out := make([][]byte, len(hashes))
	for i := range hashes {
		out[i] = hashes[i][:]
	}
	slices.SortFunc(out, bytes.Compare)
	return out
}

func checkWhat(p *replicapb.ControlEntry) error {
	switch w := p.GetWhat().(type) {
	case *replicapb.ControlEntry_Genesis:
		return checkGenesis(p, w.Genesis)
	case *replicapb.ControlEntry_Admit:
		return checkAdmit(w.Admit)
	case *replicapb.ControlEntry_Rename:
		return checkNamed(w.Rename.GetDevice(), w.Rename.GetName())
	case *replicapb.ControlEntry_Epoch:
		if len(w.Epoch.GetId()) != 16 {
			return invalid("epoch ID of %d bytes", len(w.Epoch.GetId()))
		}
		return checkWraps(w.Epoch.GetWraps(), w.Epoch.GetId(), nil)
	case *replicapb.ControlEntry_Policy:
		return checkPolicy(w.Policy)
	case *replicapb.ControlEntry_Revoke:
		if len(w.Revoke.GetDevice()) != 32 || len(w.Revoke.GetReason()) > 1024 {
			return invalid("revocation")
		}
		return checkPositions(w.Revoke.GetLast())
	case *replicapb.ControlEntry_Release:
		if len(w.Release.GetChunks())%32 != 0 {
			return invalid("release of %d bytes", len(w.Release.GetChunks()))
		}
		return checkPositions(w.Release.GetStable())
	case *replicapb.ControlEntry_Recovery:
		return checkRecovery(p, w.Recovery)
	case *replicapb.ControlEntry_Checkpoint:
		return checkCheckpoint(p.GetSigner(), w.Checkpoint)
	case *replicapb.ControlEntry_Endorse:
		if len(w.Endorse.GetCheckpoint()) != 32 {
			return invalid("endorsement of %d bytes", len(w.Endorse.GetCheckpoint()))
		}
		return nil
	}
	// A kind of a later version: kept and forwarded, without effect here.
	return nil
}

func checkGenesis(p *replicapb.ControlEntry, g *replicapb.Genesis) error {
	if g.GetFormat() != 1 {
		return invalid("volume of format %d", g.GetFormat())
	}
	if len(g.GetBox()) != 32 {
		return invalid("box key of %d bytes", len(g.GetBox()))
	}
	if err := CheckName(g.GetName()); err != nil {
		return err
	}
	return checkRecovery(p, g.GetRecovery())
}

// checkRecovery sees to it that the recovery key itself agreed to this volume and signer.
func checkRecovery(p *replicapb.ControlEntry, r *replicapb.Recovery) error {
	key, err := fixed32[DeviceID](r.GetSign(), "recovery key")
	if err != nil {
		return err
	}
	if len(r.GetBox()) != 32 || len(r.GetSignature()) != 64 {
		return invalid("recovery key")
	}
	if !verifyRecovery(key, p.GetVolume(), p.GetSigner(), r.GetBox(), r.GetSignature()) {
		return invalid("recovery key that did not agree")
	}
	return nil
}

func checkAdmit(a *replicapb.Admit) error {
	if err := checkNamed(a.GetDevice(), a.GetName()); err != nil {
		return err
	}
	if len(a.GetBox()) != 32 {
		return invalid("box key of %d bytes", len(a.GetBox()))
	}
	switch Role(a.GetRole()) {
	case RoleMember:
	case RoleReplica:
		if len(a.GetWraps()) > 0 {
			return invalid("keys for a keyless replica")
		}
	default:
		return invalid("role %d", a.GetRole())
	}
	return checkWraps(a.GetWraps(), nil, a.GetDevice())
}

// checkWraps checks wrapped keys; epoch and device, where given, are what they
// must be for.
func checkWraps(wraps []*replicapb.Wrap, epoch, device []byte) error {
	if len(wraps) > maxWraps {
		return invalid("%d wrapped keys", len(wraps))
	}
	for _, w := range wraps {
		switch {
		case len(w.GetEpoch()) != 16, epoch != nil && !bytes.Equal(w.GetEpoch(), epoch):
			return invalid("wrapped key of another epoch")
		case device != nil && !bytes.Equal(w.GetDevice(), device):
			return invalid("wrapped key for another device")
		case len(w.GetDevice()) != 0 && len(w.GetDevice()) != 32:
			return invalid("wrapped key for a device of %d bytes", len(w.GetDevice()))
		case len(w.GetKey()) == 0 || len(w.GetKey()) > maxWrap:
			return invalid("wrapped key of %d bytes", len(w.GetKey()))
		}
	}
	return nil
}

func checkPolicy(p *replicapb.Policy) error {
	if n := len(p.GetSettings()); n == 0 || n > maxSettings {
		return invalid("policy of %d settings", n)
	}
	for _, s := range p.GetSettings() {
		if s.GetKey() == "" || len(s.GetKey()) > 64 || len(s.GetValue()) > 1024 {
			return invalid("policy setting %.64q", s.GetKey())
		}
	}
	return nil
}

func checkPositions(list []*replicapb.Position) error {
	for _, p := range list {
		if len(p.GetAuthor()) != 16 {
			return invalid("author of %d bytes", len(p.GetAuthor()))
		}
	}
	return nil
}

func checkNamed(device []byte, name string) error {
	if len(device) != 32 {
		return invalid("device of %d bytes", len(device))
	}
	return CheckName(name)
}

// CheckName holds the rule for device names: 1 to 64 bytes of printable UTF-8 without
// slash or outer spaces, since they become part of file names. It fails with ErrInvalid.
func CheckName(name string) error {
	switch {
	case name == "" || len(name) > maxName:
		return invalid("device name of %d bytes", len(name))
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unprintable):
		return invalid("device name %q", name)
	case strings.TrimSpace(name) != name || name == "." || name == "..":
		return invalid("device name %q", name)
	}
	return nil
}

func unprintable(r rune) bool { return r == '/' || !unicode.IsPrint(r) }
