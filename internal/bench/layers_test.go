package main

import "testing"

// TestLayer gives a sample to whom the innermost function with a layer belongs, and what the runtime and the kernel do to layers of their own.
func TestLayer(t *testing.T) {
	for want, stack := range map[string][]string{
		"requests":  {"internal/runtime/syscall/linux.Syscall6", "syscall.read", "bazil.org/fuse.(*Conn).ReadRequest", ourPath + "fusefs.(*Server).work"},
		"disk":      {"internal/runtime/syscall/linux.Syscall6", "syscall.pwrite", "os.(*File).Write", ourPath + "casstore.(*Store).append", ourPath + "fusefs.(*Server).work"},
		"dispatch":  {"runtime.mapaccess1", ourPath + "fusefs.(*Server).do"},
		"files":     {"runtime.memmove", ourPath + "volume.(*overlay).write", ourPath + "fusefs.(*call).write"},
		"tree":      {ourPath + "namespace.decodeNode", ourPath + "internal/kv.(*Pebble).Update", ourPath + "volume.(*Volume).mutate"},
		"state":     {"cmpbody", "github.com/cockroachdb/pebble/v2/internal/arenaskl.(*Skiplist).findSplice", ourPath + "namespace.(*Tree).Rename"},
		"sealing":   {"crypto/internal/fips140/aes/gcm.gcmAesEnc", ourPath + "cipher.(*Keyring).Seal", ourPath + "volume.(*Volume).storeBlock"},
		"store":     {ourPath + "casstore.(*index).get", ourPath + "volume.(*Volume).storeBlock"},
		"devices":   {ourPath + "replica.(*Replica).Append", ourPath + "volume.(*Volume).cutBatch"},
		"memory":    {"runtime.memclrNoHeapPointers", "runtime.mallocgc", ourPath + "volume.grow"},
		"scheduler": {"runtime.futex", "runtime.findRunnable", "runtime.mcall"},
		"other":     {"encoding/json.Marshal", "net/http.(*conn).serve"},
	} {
		if got := layer(stack); got != want {
			t.Errorf("%v: %s, want %s", stack, got, want)
		}
	}
	if got := layer([]string{"runtime.scanobject", "runtime.gcDrain", "runtime.gcBgMarkWorker"}); got != "memory" {
		t.Errorf("collecting garbage: %s", got)
	}
}
