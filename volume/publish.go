package volume

// publisher brings the content of files kept open into the tree.
func (v *Volume) publisher() {
	v.every(v.cfg.PublishInterval/2, func() {
		for _, in := range v.changedInodes() {
			v.noteUnpublished(in, v.publishDue(in))
			v.release(in)
		}
	})
}

const (
	// putOff bounds how long a file is not published, in publish intervals, while it is
	// written all over: then sealing its blocks each time would cost many times what is written.
	putOff = 10
	// putOffBlocks is how few dirty blocks are not worth that.
	putOffBlocks = 16
	// putOffBytes bounds how much may be journalled of a file meanwhile: each fsync journals again what was written again.
	putOffBytes = 64 << 20
)

// publishDue publishes a file if it is time, or else journals it.
func (v *Volume) publishDue(in *inode) error {
	now, interval := v.uptime(), int64(v.cfg.PublishInterval)
	in.mu.Lock()
	hot := in.gen != in.lookedGen
	in.lookedGen = in.gen
	since := max(in.published, in.firstChange)
	due := in.changed && now-since >= interval
	wait := hot && len(in.dirty) >= putOffBlocks && now-since < putOff*interval && in.recorded.Load() < putOffBytes && !v.dirty.half() && v.scattered(in)
	saved := in.savedGen == in.gen
	many := in.manyHeld()
	beside := in.beside > 0
	saving := in.saving != nil // which is soon over
	in.mu.Unlock()
	if !due || wait && (saved || saving) {
		return nil
	}
	free := in.fold.TryLock()
	if free {
		in.fold.Unlock()
	}
	if free && (wait || many || beside) {
		if done, err := v.saveNow(v.ctx, in); done && (wait || in.aside.Load()) || err != nil {
			return err
		}
	}
	if free && v.belowLocal(in) {
		if !many {
			return v.flush(v.ctx, in)
		}
		if in.aside.Load() { // which is soon over
			return nil
		}
	}
	return v.publishAside(in)
}

// maxAside is how many files are published aside, or wait for the network together.
const maxAside = 16

// publishAside publishes a file that may have to wait for the network, or takes a while, without having others wait for that. As long as it
// waits, or there are too many such files, what is written to it is journalled.
func (v *Volume) publishAside(in *inode) error {
	if v.startAside(in) || !in.fold.TryLock() {
		return nil
	}
	defer in.fold.Unlock()
	return v.keep(in, errNotCached)
}

// startAside has a file published aside, or reports false, if it is already or there are too many.
func (v *Volume) startAside(in *inode) bool {
	if v.ctx.Err() != nil || !in.aside.CompareAndSwap(false, true) {
		return false
	}
	v.acquireNode(in.id)
	started := v.asides.TryGo(func() error {
		defer v.release(in)
		defer in.aside.Store(false)
		v.noteUnpublished(in, v.flush(v.ctx, in))
		return nil
	})
	if !started {
		v.release(in)
		in.aside.Store(false)
	}
	return started
}

// noteUnpublished logs why a file could not be published, if it could not.
func (v *Volume) noteUnpublished(in *inode, err error) {
	if err != nil && v.ctx.Err() == nil {
		v.log.Warn("cannot publish a file yet", "inode", in.ino, "error", err)
	}
}
