package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/node"
)

// Exit codes that mount(8) gives a meaning, and takes over from its helpers.
const (
	mountUsage   = 1
	mountFailure = 32
)

// helperNames are the names under which this program is a helper of mount(8): it runs
// /sbin/mount.TYPE SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE].
var helperNames = []string{"mount.fsmount", "mount.fuse.fsmount", "mount.fuse.forever"}

// helperArgs returns the arguments of a helper if this is a call as one. Where only
// /sbin/mount.fuse is installed, that runs "fsmount SOURCE DIR -o OPTIONS".
func helperArgs(argv []string) ([]string, bool) {
	if len(argv) == 0 {
		return nil, false
	}
	args := argv[1:]
	if slices.Contains(helperNames, filepath.Base(argv[0])) {
		return args, true
	}
	plain := len(args) >= 4 && !strings.HasPrefix(args[0], "-") && !strings.HasPrefix(args[1], "-")
	return args, plain && args[2] == "-o"
}

// runHelper mounts as mount(8) asks: it returns when the mount is usable, which a
// node in the background serves, and with an exit code of mount(8).
func runHelper(args []string, std *streams) int {
	call, err := parseHelper(args)
	if err == nil {
		err = setPath()
	}
	if err == nil && !call.remount {
		err = call.check()
	}
	if err != nil {
		std.tell(err)
	} else if !call.fake {
		err = call.run(std)
	}
	switch {
	case err == nil:
		return 0
	case fail.KindOf(err) == fail.Usage:
		return mountUsage
	}
	return mountFailure
}

// setPath has programs found (fusermount3) although mount(8) passes no PATH on.
func setPath() error {
	if os.Getenv("PATH") != "" {
		return nil
	}
	return os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

// helperCall is what mount(8) asks for.
type helperCall struct {
	source, point string
	sloppy        bool // options that are not known do not matter
	fake          bool // nothing is to be mounted
	remount       bool // what the kernel does for the mount is to be changed
	data          string
	flags         []string // of fsmount
}

// parseHelper reads the arguments of a helper.
func parseHelper(args []string) (*helperCall, error) {
	c := &helperCall{}
	f := pflag.NewFlagSet("mount.fsmount", pflag.ContinueOnError)
	f.Usage = func() {}
	f.BoolVarP(&c.sloppy, "sloppy", "s", false, "")
	f.BoolVarP(&c.fake, "fake", "f", false, "")
	f.BoolP("no-mtab", "n", false, "")
	f.BoolP("verbose", "v", false, "")
	f.BoolP("rw", "w", false, "")
	readOnly := f.BoolP("ro", "r", false, "")
	f.StringP("type", "t", "", "")
	f.StringP("namespace", "N", "", "") // mount(8) has entered it already
	lists := f.StringArrayP("options", "o", nil, "")
	if err := f.Parse(args); err != nil {
		return nil, helperUsage(err.Error())
	}
	if f.NArg() != 2 {
		return nil, helperUsage("a source and a directory are needed")
	}
	c.source, c.point = f.Arg(0), f.Arg(1)
	if *readOnly {
		*lists = append(*lists, "ro")
	}
	var unknown error
	for _, list := range *lists {
		for _, option := range splitOptions(list) {
			if err := c.option(option); err != nil && unknown == nil {
				unknown = err
			}
		}
	}
	if c.remount {
		return c, nil // mount(8) adds what the table of mounts says, which knows more options
	}
	if unknown != nil && !c.sloppy {
		return nil, unknown
	}
	return c, c.chooseData()
}

func helperUsage(what string) error {
	return &fail.Error{Kind: fail.Usage, Op: what, Next: "it is mount -t fsmount DATADIR MOUNTPOINT -o OPTIONS; docs/commands.md has the options"}
}

// splitOptions splits a list at its commas, but for those in quotes.
func splitOptions(list string) []string {
	quoted := false
	parts := strings.FieldsFunc(list, func(r rune) bool {
		quoted = quoted != (r == '"')
		return r == ',' && !quoted
	})
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], `"`, "")
	}
	return parts
}

// option takes one option: of fsmount, of the kernel, or of mount(8) itself.
func (c *helperCall) option(text string) error {
	name, value, valued := strings.Cut(text, "=")
	switch {
	case name == "data" && value != "":
		c.data = value
	case name == "ro":
		c.flags = append(c.flags, "--read-only")
	case name == "rw":
		c.flags = slices.DeleteFunc(c.flags, func(f string) bool { return f == "--read-only" })
	case name == "remount":
		c.remount = true
	case name == "allow_dev", name == "allow_suid":
		c.flags = append(c.flags, "--mount-option="+strings.TrimPrefix(name, "allow_"))
	case name == "dev", name == "suid":
		// mount(8) passes them to no helper, as it takes them for the rule, and /sbin/mount.fuse passes them always: they say nothing.
	case !valued && isKernelOption(name):
		c.flags = append(c.flags, "--mount-option="+name)
	case isNoise(name):
	case isHelperFlag(name, valued):
		flag := "--" + flagName(name)
		if valued {
			flag += "=" + value
		}
		c.flags = append(c.flags, flag)
	default:
		return helperUsage("mount option " + text + " is unknown, or lacks a value")
	}
	return nil
}

func flagName(option string) string { return strings.ReplaceAll(option, "_", "-") }

// isHelperFlag reports whether an option is a flag of fsmount that may be given in
// /etc/fstab: allow_other and sync_replicas=2 are --allow-other and --sync-replicas=2.
func isHelperFlag(option string, valued bool) bool {
	switch flagName(option) {
	case "daemon", "join", "help", "data", "mount-option":
		return false
	}
	root := newRootCmd(&streams{})
	f := root.Flags().Lookup(flagName(option))
	if f == nil {
		f = root.PersistentFlags().Lookup(flagName(option))
	}
	return f != nil && !f.Hidden && (valued || f.NoOptDefVal != "")
}

// kernelOptions are what the kernel does for every mount, with the flags of mount(2) that they set and clear; fusermount3 takes them
// by their names.
var kernelOptions = map[string]struct{ set, clear uintptr }{
	"nodev": {set: unix.MS_NODEV}, "dev": {clear: unix.MS_NODEV},
	"nosuid": {set: unix.MS_NOSUID}, "suid": {clear: unix.MS_NOSUID},
	"noexec": {set: unix.MS_NOEXEC}, "exec": {clear: unix.MS_NOEXEC},
	"noatime": {set: unix.MS_NOATIME}, "atime": {clear: unix.MS_NOATIME},
	"sync": {set: unix.MS_SYNCHRONOUS}, "async": {clear: unix.MS_SYNCHRONOUS},
	"dirsync": {set: unix.MS_DIRSYNC},
}

func isKernelOption(name string) bool {
	_, is := kernelOptions[name]
	return is
}

// noise are options that concern mount(8), systemd or nobody: what they ask for is
// so anyway (rw, relatime), or is for others to see to (nofail, _netdev).
var noise = []string{
	"defaults", "auto", "noauto", "nofail", "_netdev", "group", "nogroup", "owner", "noowner", "user", "nouser", "users", "nousers",
	"comment", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "diratime", "nodiratime", "silent", "loud", "mand", "nomand",
	"iversion", "noiversion", "default_permissions", "subtype", "fsname", "nonempty", "helper", "uhelper",
}

func isNoise(name string) bool {
	return slices.Contains(noise, name) || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}

// chooseData finds the data directory: that of the option data, else the source, where
// "forever", "fsmount" and "none" stand for the usual one.
func (c *helperCall) chooseData() (err error) {
	switch {
	case c.data != "":
	case slices.Contains([]string{"forever", "fsmount", "none"}, c.source):
		c.data, err = node.DefaultDir()
		return err
	default:
		c.data = c.source
	}
	if !filepath.IsAbs(c.data) {
		return helperUsage("data directory " + c.data + " is not an absolute path")
	}
	return nil
}

// check refuses to create a volume: its recovery phrase would go to the log of the
// machine's start, or nowhere.
func (c *helperCall) check() error {
	ready, err := node.Initialised(c.data)
	if err != nil || ready {
		return err
	}
	return &fail.Error{Kind: fail.NoVolume, Op: "no volume in " + c.data,
		Next: "create one first with fsmount init --data " + c.data + ", or join one with fsmount join INVITE --data " + c.data}
}

// run mounts or remounts.
func (c *helperCall) run(std *streams) error {
	if !c.remount {
		quiet := *std
		quiet.quiet = true
		return execute(c.command(), &quiet)
	}
	m, err := findMount(c.point)
	if err == nil {
		err = c.checkWritable(m)
	}
	if err == nil {
		err = c.changeFlags(m.Mountpoint)
	}
	if err != nil {
		std.tell(err)
	}
	return err
}

// checkWritable refuses to make a mount writable whose node writes nothing: the kernel would say that it is.
func (c *helperCall) checkWritable(m node.MountInfo) error {
	if slices.Contains(c.flags, "--read-only") {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), otherPatience)
	defer cancel()
	client := control.NewClient(m.DataDir)
	defer client.Close()
	if st, err := client.Status(ctx); err != nil || !st.ReadOnly {
		return nil // a node that does not answer changes nothing
	}
	return &fail.Error{Kind: fail.ReadOnly, Op: "the node of the mount on " + m.Mountpoint + " was started read-only",
		Next: "unmount and mount again without ro: fsmount umount " + m.Mountpoint}
}

// changeFlags has the kernel treat a mount as the options say. It keeps ignoring devices and set-id bits unless it is told otherwise:
// mount(8) does not pass on that it may heed them.
func (c *helperCall) changeFlags(point string) error {
	var now unix.Statfs_t
	if err := unix.Statfs(point, &now); err != nil {
		return &fail.Error{Kind: fail.Mountpoint, Op: "look at the mount on " + point, Err: err, Next: "unmount and mount again: fsmount umount " + point}
	}
	flags := uintptr(unix.MS_REMOUNT | now.Flags&(unix.MS_NODEV|unix.MS_NOSUID))
	for _, f := range c.flags {
		if f == "--read-only" {
			flags |= unix.MS_RDONLY
		}
		o := kernelOptions[strings.TrimPrefix(f, "--mount-option=")]
		flags = flags&^o.clear | o.set
	}
	if err := unix.Mount("", point, "", flags, ""); err != nil {
		return &fail.Error{Kind: fail.Mountpoint, Op: "remount " + point, Err: err, Next: "unmount and mount again: fsmount umount " + point}
	}
	return nil
}

// command returns the command line of fsmount that does it.
func (c *helperCall) command() []string {
	return append(append([]string{"--daemon", "--data", c.data}, c.flags...), "--", c.point)
}

// check refuses options that the kernel does not have.
func (o *mountOptions) check() error {
	for _, name := range o.options {
		if !isKernelOption(name) {
			return usageError(errors.New("--mount-option " + name + " is unknown: " + strings.Join(slices.Sorted(maps.Keys(kernelOptions)), ", ")))
		}
	}
	return nil
}
