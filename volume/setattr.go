package volume

import (
	"context"

	"github.com/foreverfs/forever/namespace"
)

// Setattr changes attributes and returns them all.
func (v *Volume) Setattr(ctx context.Context, ino uint64, s SetAttr) (a Attr, err error) {
	room := v.growable
	if s.Valid&SetSize != 0 { // it frees space, or makes a hole
		room = v.shrinkable
	}
	if err := room(); err != nil {
		return Attr{}, err
	}
	err = v.with(ino, func(in *inode) error {
		if s.Valid&SetSize != 0 {
			if err := v.setSize(ctx, in, s.Size, s.Held); err != nil {
				return err
			}
			room = v.writable // the rest belongs to it
		}
		if s.Valid&(SetMtime|SetMtimeNow) != 0 && in.closedAt() != 0 {
			// After a crash the journal, which has the time of the write, would enter the content behind this op.
			if err := v.settleHere(ctx, in); err != nil {
				v.log.Warn("cannot seal a closed file yet; a crash could undo the time it is given", "inode", in.ino, "error", err)
			}
		}
		if err := v.setAttr(in, s, room); err != nil {
			return err
		}
		if err := v.announceContent(ctx, in); err != nil && s.Valid&SetSize == 0 { // else it is done all the same: see setSize
			return err
		}
		a, err = v.stat(in)
		return err
	})
	return a, err
}

// setSize truncates a file. If held is set it was through an open file, whose close publishes that; else it is done with. That it cannot be sealed
// yet, nor journalled, is no error: the kernel, which takes that for the file being as it was, would go on with the old size.
func (v *Volume) setSize(ctx context.Context, in *inode, size int64, held bool) error {
	n, err := v.node(in)
	switch {
	case err != nil:
		return err
	case n.Kind == namespace.KindDir:
		return namespace.ErrIsDir
	case n.Kind != namespace.KindFile:
		return ErrInvalid
	}
	if err := v.truncate(ctx, in, size); err != nil {
		return err
	}
	if held || v.flushClosed(ctx, in) == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.changed {
		in.closedGen = in.gen
		v.setFailed(waiting{in: in})
	}
	return nil
}

// setAttr makes the op for everything but the size, if there is room.
func (v *Volume) setAttr(in *inode, s SetAttr, room func() error) error {
	now := v.now()
	var c namespace.AttrChange
	if s.Valid&SetMode != 0 {
		c.Mask, c.Mode = c.Mask|namespace.AttrMode, s.Mode&07777
	}
	if s.Valid&SetUID != 0 {
		c.Mask, c.UID = c.Mask|namespace.AttrUID, s.UID
	}
	if s.Valid&SetGID != 0 {
		c.Mask, c.GID = c.Mask|namespace.AttrGID, s.GID
	}
	if s.Valid&(SetAtime|SetAtimeNow) != 0 {
		c.Mask, c.Atime = c.Mask|namespace.AttrAtime, s.Atime
		if s.Valid&SetAtimeNow != 0 {
			c.Atime = now
		}
	}
	if s.Valid&(SetMtime|SetMtimeNow) != 0 {
		c.Mask, c.Mtime = c.Mask|namespace.AttrMtime, s.Mtime
		if s.Valid&SetMtimeNow != 0 {
			c.Mtime = now
		}
	}
	if c.Mask == 0 {
		return nil
	}
	// The lock keeps the order of this op and the file's next content op, which carries a time too.
	in.mu.Lock()
	defer in.mu.Unlock()
	if c.Mask&namespace.AttrMtime != 0 {
		in.mtime, in.savedGen = c.Mtime, 0
		if in.ready != nil {
			in.ready.mtime = c.Mtime
		}
	}
	return v.mutateUnder(room, v.treeMu.LockInPlace, func(t *namespace.Tree, now int64) error {
		_, err := t.SetAttr(now, in.id, c)
		return err
	})
}
