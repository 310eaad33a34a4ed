// Package arrows holds no code: its test holds the table of which package of this
// module may import which (docs/design.md, section 3).
package arrows
